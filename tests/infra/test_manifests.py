"""What the overlays give a cluster, as kustomize builds them: pods, rights, networks, queues, and that names agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graftline.environment import ROOT
from graftline.pipelines.pods import KEYS
from graftline.tasks.federated import FederatedParams
from graftline.yamlfile import load_yaml, parse_yaml

Object = dict[str, Any]
OVERLAYS = ("airgapped", "dev", "eks-gpu", "gke-gpu")
GPU_OVERLAYS = ("airgapped", "eks-gpu", "gke-gpu")


@pytest.fixture(scope="module")
def built(manifests: Path, done: subprocess.CompletedProcess[str]) -> dict[str, list[Object]]:
    """The objects of each overlay, of `argocd` and its `applications`.

    `once` has each different one, and the pods inside them.
    """
    assert done.returncode == 0, done.stdout
    files = [*manifests.glob("*.yaml"), *manifests.glob("once/*.yaml")]
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
        "graftline-reconcile",
        "graftline-drift",
        "graftline-metrics",
        "graftline-torch-node",
        "graftline-site",
        "glosses",
    }
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
        spec, name = policy["spec"], policy["metadata"]["name"]
        assert {} not in spec.get("ingress", []) and {} not in spec.get("egress", []), name
        for rule in spec.get("egress", []):
            for block in [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]:
                metadata_is_out = "169.254.0.0/16" in block.get("except", []) or block["cidr"] == "10.0.0.0/8"
                only_names = {port["port"] for port in rule["ports"]} == {53}
                assert metadata_is_out or only_names, f"{name}: a node's credentials could be asked for"
    if overlay == "airgapped":
        assert "0.0.0.0/0" not in str(policies)


_RUN = {"graftline.dev/task": "mnist", "workflows.argoproj.io/workflow": "retrain-mnist-rt9bt"}
_NODE = {"graftline.dev/task": "mnist", "graftline.dev/train-job-node": "true"}
_PODS = {
    "run": _RUN,  # driver, step, exit handler
    "node": _NODE,
    "reconcile": {"app.kubernetes.io/name": "graftline-reconcile"},
    "metrics": {"app.kubernetes.io/name": "graftline-metrics"},
    "server": {"serving.kserve.io/inferenceservice": "glosses"},
}
_ALL = {("dns", 53), ("store", 443), ("store", 8333), ("store", 9000)}
_CONTROL = {("api", 6443), ("kubeflow", 8080), ("kubeflow", 8887), ("kubeflow", 8888)}
FLOWS = {
    "run": _ALL | _CONTROL,
    "reconcile": _ALL | _CONTROL,
    "metrics": _ALL,
    "server": _ALL,
    "node": _ALL | {("node", None)},
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_kind_of_pod_reaches_what_it_was_seen_to_call_and_no_more(
    built: dict[str, list[Object]], overlay: str
) -> None:
    """K44. git is on 443 like the store; 443 is open to the API server's service as well."""
    policies = [policy["spec"] for policy in of(built[overlay], "NetworkPolicy")]
    for kind, labels in _PODS.items():
        found = {
            (place, port.get("port"))
            for spec in policies
            if selects(spec["podSelector"], labels)
            for rule in spec.get("egress", [])
            for peer in rule["to"]
            for port in rule.get("ports", [{}])
            for place in [named_place(peer, port.get("port"))]
        }
        assert found - {("api", 443)} == FLOWS[kind], kind


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector chooses a pod: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
    for item in selector.get("matchExpressions", []):
        value = labels.get(item["key"])
        holds = {
            "DoesNotExist": value is None,
            "Exists": value is not None,
            "In": value in item.get("values", []),
            "NotIn": value not in item.get("values", []),
        }
        if not holds[item["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def named_place(peer: Object, port: int | None) -> str:
    """Return what a rule's destination is for."""
    if "podSelector" in peer:
        assert selects(peer["podSelector"], _NODE) and not selects(peer["podSelector"], _RUN)
        return "node"
    if port == 53:
        return "dns"
    if "namespaceSelector" in peer:
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kubeflow"}
        return "store" if port in (8333, 9000) else "kubeflow"
    return "store" if port == 443 else "api"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_nodes_own_resolver_may_be_asked(built: dict[str, list[Object]], overlay: str) -> None:
    """NodeLocal DNSCache answers at 169.254.20.10, GKE's Cloud DNS at 169.254.169.254: only names, at port 53."""
    (rule,) = named(built[overlay], "NetworkPolicy", "dns")["spec"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.0.0/16"}} in rule["to"]
    assert rule["ports"] == [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rights_are_of_the_namespace_and_without_wildcards(built: dict[str, list[Object]], overlay: str) -> None:
    objects = built[overlay]
    assert not of(objects, "ClusterRole") and not of(objects, "ClusterRoleBinding")
    for role in of(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], role["metadata"]["name"]
            assert not {"roles", "rolebindings", "serviceaccounts/token"} & set(rule["resources"])
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] and rule["verbs"] == ["get"]
    accounts = {account["metadata"]["name"] for account in of(objects, "ServiceAccount")}
    assert {subject["name"] for binding in of(objects, "RoleBinding") for subject in binding["subjects"]} <= accounts
    assert {pod["serviceAccountName"] for _, pod in pods(objects)} <= accounts
    mounted = {a["metadata"]["name"] for a in of(objects, "ServiceAccount") if a["automountServiceAccountToken"]}
    assert mounted == {"graftline-run"}, "Kubeflow's own containers in a step's pod need the token"


RIGHTS = {
    "graftline-reconcile": {
        ("pipelines.kubeflow.org", "pipelines", "create get list"),
        ("pipelines.kubeflow.org", "pipelines/versions", "create get list"),
        ("pipelines.kubeflow.org", "experiments", "create get list"),
        ("pipelines.kubeflow.org", "runs", "create get list"),
        ("argoproj.io", "workflows", "list"),
        ("trainer.kubeflow.org", "trainjobs", "delete list"),
    },
    "graftline-run": {
        ("argoproj.io", "workflowtaskresults", "create patch"),  # Argo's executor
        ("", "configmaps", "get"),  # Kubeflow's launcher
        ("", "secrets", "get"),
        ("argoproj.io", "workflows", "get"),
        ("", "pods", "get list watch"),
        ("", "pods/log", "get"),
        ("trainer.kubeflow.org", "trainjobs", "create delete get list watch"),
        ("kueue.x-k8s.io", "workloads", "list"),
    },
}


def test_roles_allow_what_the_code_calls_and_no_more(built: dict[str, list[Object]]) -> None:
    """K12, K40: no terminate, no recurring runs (`jobs`); jobs of a run that has ended are listed and deleted."""
    roles = {role["metadata"]["name"]: role["rules"] for role in of(built["gke-gpu"], "Role")}
    assert {name: set(rights(rules)) for name, rules in roles.items()} == RIGHTS
    code = "".join(path.read_text() for path in sorted((ROOT / "pipelines").rglob("*.py")))
    allowed = {(resource, verb) for _, resource, verbs in RIGHTS["graftline-reconcile"] for verb in verbs.split()}
    assert kubeflow_calls(code) <= allowed
    for plural in ("workflows", "trainjobs", "workloads"):
        assert re.search(rf"\b{plural}\b", code), f"nothing asks for {plural} any more"


def rights(rules: list[Object]) -> Iterator[tuple[str, str, str]]:
    for rule in rules:
        (group,) = rule["apiGroups"]
        yield from ((group, resource, " ".join(sorted(rule["verbs"]))) for resource in rule["resources"])


def kubeflow_calls(code: str) -> set[tuple[str, str]]:
    """Return resource and verb of each call of kfp_server_api, as Kubeflow's API server asks the cluster about them.

    https://github.com/kubeflow/pipelines/blob/master/backend/src/apiserver/common/const.go
    """
    found = set()
    for service, verb, thing in re.findall(r"(\w+)_service_([a-z]+)_(\w+)", code):
        if service != "healthz":  # anybody may ask whether it is well
            found.add(("pipelines/versions" if "pipeline_version" in thing else f"{service.strip('_')}s", verb))
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_is_restricted_and_holds_everything(built: dict[str, list[Object]], overlay: str) -> None:
    (namespace,) = of(built[overlay], "Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile", "K31: Kubeflow's own network policy asks for it"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    without = {
        "Namespace",
        "ClusterQueue",
        "ResourceFlavor",
        "ClusterTrainingRuntime",
        "NodePool",
        "EC2NodeClass",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    }
    for value in built[overlay]:
        expected = None if value["kind"] in without else "graftline"
        assert value["metadata"].get("namespace") == expected, value["metadata"]["name"]
    (quota,) = of(built[overlay], "ResourceQuota")
    assert {"pods", "requests.cpu", "requests.memory", "requests.nvidia.com/gpu"} <= set(quota["spec"]["hard"])


def test_secrets_are_named_and_never_held(built: dict[str, list[Object]]) -> None:
    settings = load_yaml(ROOT / "pipelines/settings.yaml")
    assert not [value for objects in built.values() for value in of(objects, "Secret")]
    for name, pod in pods(built["once"]):
        for container in containers(pod):
            sources = [source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source]
            assert set(sources) <= {settings["store_secret"]}, name
            assert not [
                item
                for item in container.get("env", [])
                if re.search("(?<!CONFIG)_KEY(?!S$)", item["name"]) and "value" in item  # _KEYS names a folder
            ], name


def test_a_site_of_federated_rounds_looks_often_enough_and_reaches_only_the_stores(
    built: dict[str, list[Object]],
) -> None:
    """A site's cluster runs nothing else, and its data lie in a volume that outlives each job."""
    objects = built["site"]
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of(objects, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ports = {port["port"] for spec in policies.values() for rule in spec.get("egress", []) for port in rule["ports"]}
    assert ports == {53, 443} and not [spec for spec in policies.values() if spec.get("ingress")]
    (namespace,) = of(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    job = named(objects, "CronJob", "graftline-site")["spec"]
    assert job["concurrencyPolicy"] == "Forbid", "two jobs would fine-tune for one order"
    minutes = int(re.fullmatch(r"\*/(\d+) \* \* \* \*", job["schedule"])[1])  # type: ignore[index]
    assert job["startingDeadlineSeconds"] <= 60 * minutes, "what a job of half a day misses does not end the schedule"
    late = FederatedParams().late
    assert 60 * minutes < late / 4, "a look, and most of the time that the coordinator waits to fine-tune"
    ((_, pod),) = pods(objects)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "site"]
    (claim,) = of(objects, "PersistentVolumeClaim")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    settings = named(objects, "ConfigMap", "graftline-settings")["data"]
    (container,) = pod["containers"]
    used = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
    assert used == set(settings)
    assert not of(objects, "Role") and not of(objects, "Deployment")


def test_what_runs_refer_to_is_never_pruned(built: dict[str, list[Object]]) -> None:
    application = named(built["applications"], "Application", "graftline-pipelines")
    policy = application["spec"]["syncPolicy"]
    assert policy["automated"]["prune"] is False and "Prune=false" in policy["syncOptions"]
    assert application["spec"]["source"]["path"] == "pipelines/compiled"
    (namespace,) = of(built["gke-gpu"], "Namespace")
    assert namespace["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false"


def test_a_root_application_applies_the_platform_and_then_the_pipelines(built: dict[str, list[Object]]) -> None:
    (root,) = of(built["argocd"], "Application")
    assert root["spec"]["source"]["path"] == "infra/argocd/applications"
    assert root["spec"]["destination"]["namespace"] == "argocd"
    children = built["applications"]
    waves = {
        child["metadata"]["name"]: int(child["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for child in children
    }
    assert waves["graftline-platform"] < waves["graftline-pipelines"]
    project = named(built["argocd"], "AppProject", root["spec"]["project"])["spec"]
    allowed = project["namespaceResourceWhitelist"]
    assert allowed == [{"group": "argoproj.io", "kind": "Application"}]
    assert not project.get("clusterResourceWhitelist")
    assert [place["namespace"] for place in project["destinations"]] == ["argocd"]
    assert {child["kind"] for child in children} == {"Application"}
    for application in [root, *children]:
        assert (ROOT / application["spec"]["source"]["path"]).is_dir()
    health = load_yaml(ROOT / "infra/argocd/health.yaml")["data"]
    assert set(health) == {"resource.customizations.health.argoproj.io_Application"}
    assert "--patch-file infra/argocd/health.yaml" in (ROOT / "docs/cluster.md").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pipelines_wait_for_nothing_that_they_are_needed_for(built: dict[str, list[Object]], overlay: str) -> None:
    """A server without a champion, or reconcile without a secret, must not hold up the pipelines' application."""
    (job,) = of(built[overlay], "CronJob")
    reconcile = named(built[overlay], "Deployment", "graftline-reconcile")
    servers = of(built[overlay], "InferenceService")
    for metadata in [value["metadata"] for value in (job, reconcile, *servers)]:
        assert metadata["annotations"]["argocd.argoproj.io/ignore-healthcheck"] == "true", metadata["name"]


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


_UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_profile_has_a_queue_that_can_hold_its_train_job(built: dict[str, list[Object]], overlay: str) -> None:
    from graftline.pipelines.trainjob.manifest import Job, manifest
    from graftline.profiles import load_profiles

    profiles = {name: profile.pod for name, profile in load_profiles().items() if profile.pod and name != "dev"}
    if overlay not in GPU_OVERLAYS:
        profiles = {"cpu": load_profiles()["dev"].pod}  # its node plays the pool `cpu`
    flavors = {flavor["metadata"]["name"]: flavor["spec"] for flavor in of(built[overlay], "ResourceFlavor")}
    assert set(flavors) == set(profiles)
    (group,) = named(built[overlay], "ClusterQueue", "graftline")["spec"]["resourceGroups"]
    for flavor in group["flavors"]:  # Kueue's webhook wants the same resources in the same order
        assert [item["name"] for item in flavor["resources"]] == group["coveredResources"], flavor["name"]
    quotas = {
        flavor["name"]: {item["name"]: amount(item["nominalQuota"]) for item in flavor["resources"]}
        for flavor in group["flavors"]
    }
    hard = named(built[overlay], "ResourceQuota", "graftline")["spec"]["hard"]
    for name, pod in profiles.items():
        assert flavors[name]["nodeLabels"] == {"graftline.dev/pool": name}
        assert (pod.node_selector or flavors[name]["nodeLabels"]) == flavors[name]["nodeLabels"], name
        tolerated = {(toleration.key, toleration.value) for toleration in pod.tolerations}
        # K41: what a flavour names every job must tolerate, and the CPU pool's nodes need not have a taint
        assert taints(flavors[name].get("nodeTaints", [])) == (tolerated if pod.node_selector else set()), name
        job = manifest(Job("0" * 64, "mnist", "pretrain", "image", pod, [], {}), "graftline")
        trainer = job["spec"]["trainer"]
        for resource, asked in trainer["resourcesPerNode"]["requests"].items():
            assert resource in quotas[name], f"{name}: Kueue lets in no job that asks for {resource}"
            wanted = amount(asked) * trainer["numNodes"]
            assert wanted <= quotas[name][resource], f"{name}: {resource}"
            assert wanted <= amount(hard[f"requests.{resource}"]), f"{name}: {resource}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_step_is_ended_for_using_the_disk_that_its_profile_gives(
    built: dict[str, list[Object]], overlay: str
) -> None:
    """A compiled step names the size of /tmp and no ephemeral storage, so a default limit would be its limit."""
    (limits,) = of(built[overlay], "LimitRange")
    (container,) = limits["spec"]["limits"]
    assert "ephemeral-storage" not in container["default"] and "max" not in container
    assert "ephemeral-storage" in container["defaultRequest"]


def test_the_device_plugin_runs_on_every_pool_with_gpus() -> None:
    from graftline.profiles import load_profiles

    path = "infra/nvidia-device-plugin.yaml"
    values = load_yaml(ROOT / path)
    assert values["tolerations"] == [{"operator": "Exists"}], "whatever taints a pool has"
    required = values["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    pools = {name for name, profile in load_profiles().items() if profile.accelerator}
    assert (expression["key"], set(expression["values"])) == ("graftline.dev/pool", pools)
    assert f"--values {path}" in (ROOT / "docs/cluster.md").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_scheduler_follows_git_by_itself(built: dict[str, list[Object]], overlay: str) -> None:
    """K48, K49: no hook of Argo CD, for after a revert there is no sync. K20: in the image without torch."""
    assert "argocd.argoproj.io/hook" not in str(built[overlay]) + str(built["applications"])
    deployment = named(built[overlay], "Deployment", "graftline-reconcile")["spec"]
    assert deployment["replicas"] == 1
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    image = load_yaml(ROOT / "images.lock")["images"]["data"]
    assert container["image"] == image
    assert container["livenessProbe"]["exec"]["command"] == [*container["command"], "--healthy"]
    assert amount(container["resources"]["requests"]["memory"]) == amount("200Mi")
    assert amount(container["resources"]["requests"]["cpu"]) == 0.05
    names = {item["name"]: item["value"] for item in container["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for path, audience in (
        (names["GRAFTLINE_KFP_TOKEN_FILE"], "pipelines.kubeflow.org"),
        ("/var/run/secrets/kubernetes.io/serviceaccount/token", None),
    ):
        folder, _, name = path.rpartition("/")
        source = volumes[mounts[folder]]["projected"]["sources"][0]["serviceAccountToken"]
        assert (source["path"], source.get("audience")) == (name, audience)
    (folder,) = re.findall(r"--file=(\S+)/credentials", names["GIT_CONFIG_VALUE_0"])
    assert "secret" in volumes[mounts[folder]]


def test_the_scheduler_runs_the_code_of_the_commit_that_it_follows(
    built: dict[str, list[Object]], tmp_path: Path
) -> None:
    """Its pod's own commands, twice: a container that is made anew finds the volumes as they were."""
    pod = named(built["dev"], "Deployment", "graftline-reconcile")["spec"]["template"]["spec"]
    (checkout,), (reconcile,) = pod["initContainers"], pod["containers"]
    origin = tmp_path / "origin"
    for folder in ("src", "components", "pipelines"):
        shutil.copytree(ROOT / folder, origin / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    settings = {"GRAFTLINE_REPOSITORY": str(origin), "GRAFTLINE_REVISION": "main", "HOME": str(tmp_path)}
    given = {item["name"]: item["value"].replace("/work", str(tmp_path)) for item in reconcile["env"]}
    environment = {**given, **settings, "PATH": os.environ["PATH"], "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    commit = "git init -q -b main && git add -A && git -c user.name=a -c user.email=a@b commit -q -m all"
    subprocess.run(["sh", "-c", commit], cwd=origin, env=environment, check=True)
    for _ in range(2):
        script = [part.replace("/work", str(tmp_path)) for part in (*checkout["command"], *checkout["args"])]
        subprocess.run(script, env=environment, check=True)
    _, *command = reconcile["command"]
    where = reconcile["workingDir"].replace("/work", str(tmp_path))
    code = f"import importlib.util as util; print(util.find_spec({command[-1]!r}).origin)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=where, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).resolve() == tmp_path / "repository/pipelines/reconcile/serve.py"
    _, *probe = reconcile["livenessProbe"]["exec"]["command"]
    ill = [sys.executable, *probe, "--alive", str(tmp_path / "never")]
    assert subprocess.run(ill, env=environment, cwd=where, check=False).returncode == 1
    (tmp_path / "turned").touch()
    well = [sys.executable, *probe, "--alive", str(tmp_path / "turned")]
    assert subprocess.run(well, env=environment, cwd=where, check=False).returncode == 0
    given = [word for word in reconcile["args"] if word.startswith("-")]
    text = subprocess.run(
        [sys.executable, *command, "--help"], env=environment, cwd=where, capture_output=True, text=True, check=True
    ).stdout
    assert all(word in text for word in given)


def test_init_containers_can_run_twice(built: dict[str, list[Object]]) -> None:
    """A pod whose sandbox is made anew runs them again, with its volumes as they were."""
    found = [
        (name, container)
        for name, pod in pods(built["once"])
        for container in pod.get("initContainers", [])
        if container.get("restartPolicy") != "Always"
    ]
    assert {container["name"] for _, container in found} == {"checkout", "release"}
    for name, container in found:
        script = container["args"][0]
        (target,) = set(re.findall(r"--out (\S+)|GRAFTLINE_REPOSITORY\" (\S+)", script))
        assert f"rm -rf {target[0] or target[1]}" in script.splitlines()[0], name


def test_karpenter_and_terraform_make_the_pools_of_the_profiles(built: dict[str, list[Object]]) -> None:
    profiles = load_yaml(ROOT / "pipelines/profiles.yaml")["profiles"]
    del profiles["dev"]  # any node
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
    for overlay in OVERLAYS:  # runs get the store of settings.yaml, and reconcile's releases are those of its runs
        given = named(built[overlay], "ConfigMap", "graftline-settings")["data"]
        assert given["GRAFTLINE_STORE"] == settings["store"]
        assert given["GRAFTLINE_REPOSITORY"] == settings["repository"]
        assert given.get("AWS_DEFAULT_REGION") == given.get("AWS_REGION")  # clients differ in which one they read
        (namespace,) = of(built[overlay], "Namespace")
        assert namespace["metadata"]["name"] == settings["namespace"]
        named(built[overlay], "ServiceAccount", settings["service_account"])


def test_commands_of_the_pods_exist(built: dict[str, list[Object]]) -> None:
    from graftline.cli.app import COMMANDS

    known = COMMANDS.keys()
    words = " ".join(
        " ".join([*container.get("command", []), *container.get("args", [])])
        for _, pod in pods(built["once"])
        for container in containers(pod)
    )
    called = set(re.findall(r"python -m graftline\.cli (\w+)", words))
    assert called == {"drift", "fetch", "join"}
    assert called <= known
    modules = set(re.findall(r"python -m graftline\.(pipelines\.[\w.]+)", words))
    assert modules == {"pipelines.metrics", "pipelines.reconcile.serve"}


def test_alerts_ask_for_metrics_that_the_exporter_has(built: dict[str, list[Object]], tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from graftline.pipelines.metrics import collect

    (rules,) = of(built["gke-gpu"], "PrometheusRule")
    asked = "".join(rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    offered = {gauge.name for gauge in collect(str(tmp_path), tmp_path, datetime.now(UTC))}
    assert set(re.findall(r"graftline_\w+_(?:seconds|readable|open)", asked)) == offered


def test_an_alert_tells_that_the_scheduler_is_down(built: dict[str, list[Object]]) -> None:
    (rules,) = of(built["gke-gpu"], "PrometheusRule")
    asked = "".join(rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    for kind, label in (("Deployment", "deployment"), ("CronJob", "cronjob")):
        watched = set(re.findall(rf'{label}="([\w-]+)"', asked))
        there = {value["metadata"]["name"] for value in of(built["gke-gpu"], kind)} - {"graftline-metrics"}
        assert watched == there, f"an alert for each {kind} that is there, and for none that is not"


def test_the_documents_secrets_have_the_keys_that_pods_read(built: dict[str, list[Object]]) -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    settings = load_yaml(ROOT / "pipelines/settings.yaml")
    made = {
        name: set(re.findall(r"--from-literal=(\w+)=", rest))
        for name, rest in re.findall(r"create secret generic (\S+)((?:.*\\\n)*.*)", text)
    }
    compiled = "".join(path.read_text() for path in (ROOT / "pipelines/compiled").glob("*.yaml"))
    read = re.findall(r"(?s)keyToEnv:(.*?)secretName: (\S+)", compiled)
    assert {name for _, name in read} == {settings["store_secret"], settings["git_secret"]}
    for keys, name in read:
        assert set(re.findall(r"secretKey: (\w+)", keys)) <= made[name], name
    assert "/etc/graftline/git/credentials" in str(built["dev"])
    assert "credentials" in made[settings["git_secret"]]


def test_kubeflows_launcher_gets_keys_of_its_own(built: dict[str, list[Object]]) -> None:
    """With an s3:// root and no `providers` it would take the store's from a step's environment."""
    text = (ROOT / "infra/kubeflow/kfp-launcher.yaml").read_text()
    data = load_yaml(ROOT / "infra/kubeflow/kfp-launcher.yaml")["data"]
    default = parse_yaml(data["providers"], where="providers")["s3"]["default"]
    assert data["defaultPipelineRoot"].startswith("s3://") and default["credentials"]["fromEnv"] is False
    secret = default["credentials"]["secretRef"]
    assert secret["secretName"] != load_yaml(ROOT / "pipelines/settings.yaml")["store_secret"]
    readable = [
        rule["resourceNames"]
        for rule in named(built["dev"], "Role", "graftline-run")["rules"]
        if rule["resources"] == ["secrets"]
    ]
    assert secret["secretName"] in readable[0]
    for key in ("accessKeyKey", "secretKeyKey"):
        assert f"--from-literal={secret[key]}=" in text


def test_the_document_has_what_a_real_cluster_wanted() -> None:
    """K33, K5, K6."""
    text = (ROOT / "docs/cluster.md").read_text()
    steps = dict(re.findall(r"(?ms)^## (\d+)\. (.*?)(?=^## )", text))
    assert "git://" in steps["1"], "make manifests refuses it for Argo CD"
    assert "-n kueue-system wait deployment" in steps["3"], "a webhook that does not answer refuses every pod"
    assert "OnError" in steps["3"]
    assert steps["5"].index(".keyring.json.lock") < steps["5"].index("secret generic graftline-signing")
    assert "graftline doctor" in steps["7"] and "make cluster-test" in steps["7"]
    assert "8888" in steps["7"] and "asks for no token" in " ".join(steps["7"].split())
    for version in ("1.36.3", "4.0.5", "2.17.0", "2.3.0", "0.12.0", "0.19.2", "3.5.1"):
        assert text.count(version) >= 2, f"{version}: at the top, and in what has been run"


def test_a_train_jobs_pods_see_the_signing_key_where_the_launcher_says() -> None:
    spec = load_yaml(ROOT / "infra/components/trainer/runtime.yaml")["spec"]["template"]["spec"]["replicatedJobs"][0]
    pod = spec["template"]["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if "secret" in each]
    assert volume["secret"]["secretName"] == load_yaml(ROOT / "pipelines/settings.yaml")["signing_secret"]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == (KEYS, True)


def test_no_output_of_a_job_can_hold_a_secret() -> None:
    """GitHub drops an output that contains a secret's value; images.lock has the registry's user in its names."""
    text = (ROOT / ".github/workflows/images.yml").read_text()
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"REGISTRY_TOKEN"}
    jobs = load_yaml(ROOT / ".github/workflows/images.yml")["jobs"]
    assert jobs["build"]["if"] == "vars.REGISTRY != ''" and jobs["propose"]["needs"] == "build"


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
