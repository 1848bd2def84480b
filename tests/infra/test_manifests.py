"""What the overlays give a cluster, as kustomize builds them: pods, rights, networks, queues, and that names agree."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graftline.environment import ROOT
from graftline.yamlfile import load_yaml, parse_yaml

Check = Callable[..., subprocess.CompletedProcess[str]]
Object = dict[str, Any]
OVERLAYS = ("airgapped", "dev", "eks-gpu", "gke-gpu")
GPU_OVERLAYS = ("airgapped", "eks-gpu", "gke-gpu")


@pytest.fixture(scope="module")
def built(check: Check, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """The objects of each overlay, of `hook` and `argocd`; `once` has each different one and the pods inside them."""
    out = tmp_path_factory.mktemp("built")
    done = check("--only", "manifests", "--out", out)
    assert done.returncode == 0, done.stdout
    files = [*out.glob("*.yaml"), *out.glob("once/*.yaml")]
    return {"once" if path.parent.name == "once" else path.stem: documents(path) for path in files}


def documents(path: Path) -> list[Object]:
    parts = re.split(r"(?m)^---$", path.read_text())
    return [part for part in (parse_yaml(text, where=path) for text in parts) if part is not None]


def of(objects: list[Object], kind: str) -> list[Object]:
    return [value for value in objects if value["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [value for value in of(objects, kind) if value["metadata"]["name"] == name]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the pod of each object that runs one."""
    for value in objects:
        name, spec = f"{value['kind']}/{value['metadata']['name']}", value.get("spec", {})
        if value["kind"] == "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]["spec"]
        elif value["kind"] in {"Job", "Deployment"}:
            yield name, spec["template"]["spec"]
        elif value["kind"] == "Pod":
            yield name, spec


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_every_pod_runs_with_the_least_it_needs(built: dict[str, list[Object]]) -> None:
    found = dict(pods(built["once"]))
    assert {name.split("/")[1] for name in found} == {
        "graftline-reconcile", "graftline-drift", "graftline-reconcile-hook", "graftline-metrics",
        "graftline-torch-node", "glosses",
    }  # fmt: skip
    for name, pod in found.items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 10001, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"].startswith("graftline-"), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name
        for container in containers(pod):
            where = f"{name}: {container['name']}"
            inside = container["securityContext"]
            assert inside["allowPrivilegeEscalation"] is False, where
            assert inside["readOnlyRootFilesystem"] is True, where
            assert inside["capabilities"] == {"drop": ["ALL"]}, where
            assert "privileged" not in inside, where
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), where
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where


def test_images_are_those_of_the_lock(built: dict[str, list[Object]]) -> None:
    lock = load_yaml(ROOT / "images.lock")["images"]
    found = {container.get("image") for _, pod in pods(built["once"]) for container in containers(pod)}
    found.discard(None)  # KServe's own server: its runtime names it
    assert found == set(lock.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_may_talk_but_what_is_listed(built: dict[str, list[Object]], overlay: str) -> None:
    policies = of(built[overlay], "NetworkPolicy")
    deny = named(policies, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        spec = policy["spec"]
        assert {} not in spec.get("ingress", []) and {} not in spec.get("egress", []), policy["metadata"][
            "name"
        ]
        for rule in spec.get("egress", []):
            for block in [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]:
                metadata_is_out = "169.254.0.0/16" in block.get("except", []) or block["cidr"] == "10.0.0.0/8"
                assert metadata_is_out, "a node's credentials could be asked for"
    if overlay == "airgapped":
        assert "0.0.0.0/0" not in str(policies)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rights_are_of_the_namespace_and_without_wildcards(
    built: dict[str, list[Object]], overlay: str
) -> None:
    objects = built[overlay]
    assert not of(objects, "ClusterRole") and not of(objects, "ClusterRoleBinding")
    for role in of(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], role["metadata"]["name"]
            assert not {"roles", "rolebindings", "serviceaccounts/token"} & set(rule["resources"])
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] and rule["verbs"] == ["get"]
    accounts = {account["metadata"]["name"] for account in of(objects, "ServiceAccount")}
    assert {
        subject["name"] for binding in of(objects, "RoleBinding") for subject in binding["subjects"]
    } <= accounts
    assert {pod["serviceAccountName"] for _, pod in pods(objects)} <= accounts
    mounted = {
        a["metadata"]["name"] for a in of(objects, "ServiceAccount") if a["automountServiceAccountToken"]
    }
    assert mounted == {"graftline-run"}, "Kubeflow's own containers in a step's pod need the token"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_is_restricted_and_holds_everything(
    built: dict[str, list[Object]], overlay: str
) -> None:
    (namespace,) = of(built[overlay], "Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    without = {
        "Namespace", "ClusterQueue", "ResourceFlavor", "ClusterTrainingRuntime", "NodePool", "EC2NodeClass",
        "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding",
    }  # fmt: skip
    for value in built[overlay]:
        expected = None if value["kind"] in without else "graftline"
        assert value["metadata"].get("namespace") == expected, value["metadata"]["name"]
    (quota,) = of(built[overlay], "ResourceQuota")
    assert {"pods", "requests.cpu", "requests.memory", "requests.nvidia.com/gpu"} <= set(
        quota["spec"]["hard"]
    )


def test_secrets_are_named_and_never_held(built: dict[str, list[Object]]) -> None:
    settings = load_yaml(ROOT / "pipelines/settings.yaml")
    assert not [value for objects in built.values() for value in of(objects, "Secret")]
    for name, pod in pods(built["once"]):
        for container in containers(pod):
            sources = [
                source["secretRef"]["name"]
                for source in container.get("envFrom", [])
                if "secretRef" in source
            ]
            assert set(sources) <= {settings["store_secret"]}, name
            assert not [
                item for item in container.get("env", []) if "KEY" in item["name"] and "value" in item
            ], name


def test_what_runs_refer_to_is_never_pruned(built: dict[str, list[Object]]) -> None:
    application = named(built["argocd"], "Application", "graftline-pipelines")
    policy = application["spec"]["syncPolicy"]
    assert policy["automated"]["prune"] is False and "Prune=false" in policy["syncOptions"]
    assert [source["path"] for source in application["spec"]["sources"]] == [
        "pipelines/compiled",
        "infra/hook",
    ]
    for application in of(built["argocd"], "Application"):
        for source in application["spec"].get("sources", [application["spec"].get("source")]):
            assert (ROOT / source["path"]).is_dir(), source["path"]
    waves = {
        value["metadata"]["name"]: int(value["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for value in built["argocd"]
    }
    assert waves["graftline"] < waves["graftline-platform"] < waves["graftline-pipelines"]
    (hook,) = built["hook"]
    assert hook["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "PostSync"
    (namespace,) = of(built["gke-gpu"], "Namespace")
    assert namespace["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false"


def test_the_project_allows_every_kind_without_a_namespace(built: dict[str, list[Object]]) -> None:
    allowed = {
        (item["group"], item["kind"])
        for item in named(built["argocd"], "AppProject", "graftline")["spec"]["clusterResourceWhitelist"]
    }
    cluster = {
        (value["apiVersion"].rpartition("/")[0], value["kind"])
        for overlay in OVERLAYS
        for value in built[overlay]
        if "namespace" not in value["metadata"]
    }
    assert allowed == cluster


def taints(listed: list[Object]) -> set[tuple[str, str]]:
    return {(item["key"], item["value"]) for item in listed}


@pytest.mark.parametrize("overlay", GPU_OVERLAYS)
def test_each_profile_has_a_queue_that_can_hold_it(built: dict[str, list[Object]], overlay: str) -> None:
    profiles = load_yaml(ROOT / "pipelines/profiles.yaml")["profiles"]
    flavors = {flavor["metadata"]["name"]: flavor["spec"] for flavor in of(built[overlay], "ResourceFlavor")}
    assert set(flavors) == set(profiles)
    (group,) = named(built[overlay], "ClusterQueue", "graftline")["spec"]["resourceGroups"]
    quotas = {
        flavor["name"]: {item["name"]: item["nominalQuota"] for item in flavor["resources"]}
        for flavor in group["flavors"]
    }
    for name, profile in profiles.items():
        pod = profile["pod"]
        assert flavors[name]["nodeLabels"] == {"graftline.dev/pool": name}
        assert pod.get("node_selector", flavors[name]["nodeLabels"]) == flavors[name]["nodeLabels"], name
        assert taints(flavors[name]["nodeTaints"]) == taints(pod["tolerations"]), name
        nodes = pod.get("nodes", 1)
        assert pod["cpu"] * nodes <= float(quotas[name]["cpu"]), name
        assert pod["memory_gib"] * nodes <= float(quotas[name]["memory"].removesuffix("Gi")), name
        assert pod.get("accelerators", 0) * nodes <= float(quotas[name]["nvidia.com/gpu"]), name


def test_karpenter_and_terraform_make_the_pools_of_the_profiles(built: dict[str, list[Object]]) -> None:
    profiles = load_yaml(ROOT / "pipelines/profiles.yaml")["profiles"]
    pools = {pool["metadata"]["name"]: pool["spec"]["template"] for pool in of(built["eks-gpu"], "NodePool")}
    assert set(pools) == set(profiles)
    for name, template in pools.items():
        assert template["metadata"]["labels"] == {"graftline.dev/pool": name}
        assert taints(template["spec"]["taints"]) == taints(profiles[name]["pod"]["tolerations"]), name
        requirements = {item["key"]: item["values"] for item in template["spec"]["requirements"]}
        expected = "spot" if profiles[name]["spot"] else "on-demand"
        assert requirements["karpenter.sh/capacity-type"] == [expected], name
    for cloud in ("gke", "eks"):
        variables = (ROOT / f"infra/terraform/{cloud}/variables.tf").read_text()
        _, default = variables.split("default = {\n")
        assert set(re.findall(r"(?m)^    ([a-z0-9-]+) = \{$", default)) == set(profiles), cloud


def test_addresses_agree_with_the_pipelines_settings(built: dict[str, list[Object]]) -> None:
    settings = load_yaml(ROOT / "pipelines/settings.yaml")
    text = "".join(path.read_text() for path in (ROOT / "infra").rglob("*.yaml"))
    assert set(re.findall(r"https?://\S+\.git", text)) == {settings["repository"]}
    for overlay in GPU_OVERLAYS:
        given = named(built[overlay], "ConfigMap", "graftline-settings")["data"]
        assert given["GRAFTLINE_STORE"] == settings["store"]
        assert given["GRAFTLINE_REPOSITORY"] == settings["repository"]
        (namespace,) = of(built[overlay], "Namespace")
        assert namespace["metadata"]["name"] == settings["namespace"]
        named(built[overlay], "ServiceAccount", settings["service_account"])


def test_commands_of_the_pods_exist(built: dict[str, list[Object]]) -> None:
    from graftline.cli import app

    known = {command.name for command in app.registered_commands}
    words = " ".join(
        " ".join([*container.get("command", []), *container.get("args", [])])
        for _, pod in pods(built["once"])
        for container in containers(pod)
    )
    called = set(re.findall(r"python -m graftline\.cli (\w+)", words))
    assert called == {"reconcile", "drift", "fetch"}
    assert called <= known
    assert "python -m graftline.pipelines.metrics" in words


def test_alerts_ask_for_metrics_that_the_exporter_has(built: dict[str, list[Object]], tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from graftline.pipelines.metrics import collect

    (rules,) = of(built["gke-gpu"], "PrometheusRule")
    asked = "".join(rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    offered = {gauge.name for gauge in collect(str(tmp_path), tmp_path, datetime.now(UTC))}
    assert set(re.findall(r"graftline_\w+_(?:seconds|readable)", asked)) == offered


def test_workflows_ask_for_the_least_and_pin_what_they_use() -> None:
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        text = path.read_text()
        workflow = load_yaml(path)
        assert workflow["permissions"] == {}, path.name
        for use in re.findall(r"uses: (.*)", text):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+", use), f"{path.name}: {use}"
        for job in workflow["jobs"].values():
            assert job["permissions"] and job["timeout-minutes"], path.name
            checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
            assert all(step["with"]["persist-credentials"] is False for step in checkouts), path.name
