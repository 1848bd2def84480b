"""`graftline doctor`: a healthy cluster passes; each way of making it wrong is named by its own row and no other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import forked
import pytest
from cluster_api import Api, Doctor, ended, waiting
from healthy_cluster import WORKFLOW_DEFAULTS, secret

from graftline.errors import InputError


def test_a_healthy_cluster_passes(doctor: Doctor) -> None:
    code, points = doctor()
    assert {name: point for name, point in points.items() if point["state"] != "ok"} == {}
    assert code == 0
    assert len(points) > 35


def node(api: Api) -> dict[str, Any]:
    return api.find("Node", "node-1")


def labels(api: Api) -> dict[str, str]:
    found: dict[str, str] = api.find("Namespace", "graftline")["metadata"]["labels"]
    return found


def argo(api: Api, old: str, new: str) -> None:
    assert old in WORKFLOW_DEFAULTS
    data = api.find("ConfigMap", "workflow-controller-configmap")["data"]
    data["workflowDefaults"] = WORKFLOW_DEFAULTS.replace(old, new)


def image(api: Api, deployment: str, tag: str) -> None:
    (container,) = api.find("Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    container["image"] = f"{container['image'].rpartition(':')[0]}:{tag}"


def nobody(api: Api, service: str) -> None:
    api.find("EndpointSlice", f"{service}-x")["endpoints"][0]["conditions"]["ready"] = False


def hard(api: Api, **limits: str) -> None:
    api.find("ResourceQuota", "graftline")["spec"]["hard"].update(
        {name.replace("_", "."): value for name, value in limits.items()}
    )


def flavour(api: Api, name: str) -> dict[str, Any]:
    found: dict[str, Any] = api.find("ResourceFlavor", name)["spec"]
    return found


def store_at(api: Api, url: str) -> None:
    api.find("Secret", "graftline-store")["data"].update(secret({"AWS_ENDPOINT_URL": url}))


def image_gone(api: Api, status: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for name in ("node-1", "node-2"):
        api.find("Node", name)["status"]["images"] = []
    api.kubelet = lambda pod: status(pod) if "train" in pod["metadata"]["name"] else ended()


def said(**answers: str) -> str:
    import json

    return json.dumps({"names": "", "store": "", "repository": ""} | answers)


WRONG: dict[str, tuple[Callable[[Api], object], str, str]] = {
    # what is done to the cluster, the one row that names it, and what it says
    "kubernetes-1.34": (lambda api: setattr(api, "version", "v1.34.2"), "Kubernetes", "v1.34.2"),
    "kubeflow-2.14": (lambda api: api.health.update(tag_name="2.14.0"), "Kubeflow Pipelines", "2.14.0"),
    "kubeflow-says-no-version": (
        lambda api: (api.health.update(tag_name="unknown"), image(api, "ml-pipeline", "2.16.1")),
        "Kubeflow Pipelines", "2.16.1",
    ),
    "kubeflow-standalone": (lambda api: api.health.update(multi_user=False), "Kubeflow mode", "standalone"),
    "no-token-K27": (lambda api: setattr(api, "kfp_status", 401), "Kubeflow identity", "401"),
    "token-of-another-K27": (lambda api: setattr(api, "kfp_status", 403), "Kubeflow identity", "403"),
    "retries-always-K6": (lambda api: argo(api, "OnError", "Always"), "retry defaults", "Always"),
    "trainer-has-no-crd": (
        lambda api: api.served["trainer.kubeflow.org/v1alpha1"].remove("TrainJob"), "API TrainJob", "not served"
    ),
    "kueue-serves-v1beta1": (
        lambda api: api.served.pop("kueue.x-k8s.io/v1beta2"), "API LocalQueue", "the group has v1beta1"
    ),
    "pipelines-not-in-kubernetes": (
        lambda api: api.served["pipelines.kubeflow.org/v2beta1"].remove("PipelineVersion"),
        "API PipelineVersion", "not served",
    ),
    "kueue-0.16": (lambda api: image(api, "kueue-controller-manager", "v0.16.4"), "Kueue", "v0.16.4"),
    "trainer-2.1": (
        lambda api: image(api, "kubeflow-trainer-controller-manager", "v2.1.0@sha256:12"), "Trainer", "v2.1.0"
    ),
    "no-jobset": (lambda api: api.served.pop("jobset.x-k8s.io/v1alpha2"), "API JobSet", "not served"),
    "jobset-0.8": (lambda api: image(api, "jobset-controller-manager", "v0.8.0"), "JobSet", "v0.8.0"),
    "kueue-webhook-silent-K33": (
        lambda api: nobody(api, "kueue-controller-manager-webhook"), "webhooks", "kueue-system/kueue-controller"
    ),
    "no-runtime": (
        lambda api: api.drop("ClusterTrainingRuntime", "graftline-torch"), "training runtime", "graftline-torch"
    ),
    "no-local-queue": (lambda api: api.drop("LocalQueue", "graftline"), "queue", "no LocalQueue"),
    "cluster-queue-inactive": (
        lambda api: api.find("ClusterQueue", "graftline")["status"].update(
            conditions=[{"type": "Active", "status": "False", "message": "flavor h100 is missing"}]
        ),
        "queue", "flavor h100 is missing",
    ),
    "namespace-label-K31": (
        lambda api: labels(api).update({"app.kubernetes.io/part-of": "graftline"}), "namespace labels", "=graftline"
    ),
    "pod-security-privileged": (
        lambda api: labels(api).update({"pod-security.kubernetes.io/enforce": "privileged"}),
        "pod security", "privileged",
    ),
    "no-account": (
        lambda api: api.drop("ServiceAccount", "graftline-train"), "service accounts", "no graftline-train"
    ),
    "role-lacks-a-right": (
        lambda api: api.find("Role", "graftline-run")["rules"].pop(), "role graftline-run", "may not"
    ),
    "role-not-bound": (
        lambda api: api.drop("RoleBinding", "graftline-reconcile"), "role graftline-reconcile", "no role binding"
    ),
    "other-store-in-the-cluster": (
        lambda api: api.find("ConfigMap", "graftline-settings")["data"].update(GRAFTLINE_STORE="s3://other/x"),
        "settings", "s3://other/x",
    ),
    "no-store-secret": (
        lambda api: api.drop("Secret", "graftline-store"), "secret graftline-store", "no such secret"
    ),
    "store-secret-lacks-a-key": (
        lambda api: api.find("Secret", "graftline-store")["data"].pop("AWS_SECRET_ACCESS_KEY"),
        "secret graftline-store", "no AWS_SECRET_ACCESS_KEY",
    ),
    "keyring-without-its-key": (
        lambda api: api.find("Secret", "graftline-signing")["data"].pop("ab12.key"),
        "secret graftline-signing", "no ab12.key",
    ),
    "git-secret-lacks-token": (
        lambda api: api.find("Secret", "graftline-git")["data"].pop("token"), "secret graftline-git", "no token"
    ),
    "no-artifact-secret": (
        lambda api: api.drop("Secret", "mlpipeline-minio-artifact"), "artifacts", "no secret mlpipeline"
    ),
    "pipeline-root-with-our-keys": (
        lambda api: api.objects.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kfp-launcher", "namespace": "graftline"},
             "data": {"defaultPipelineRoot": "s3://our-bucket/artifacts"}}
        ),
        "artifacts", "our store's keys",
    ),
    "store-on-another-port-K34": (
        lambda api: store_at(api, "https://s3.example.com:9443"), "egress", "the store at s3.example.com:9443"
    ),
    "no-way-to-kubeflow-K44": (
        lambda api: api.drop("NetworkPolicy", "to-control-plane"), "egress", "ml-pipeline.kubeflow.svc:8887"
    ),
    "quota-below-a-profile-K10": (
        lambda api: hard(api, requests_cpu="5"), "quota for gpu-l4-spot", "requests.cpu: 7 > 5"
    ),
    "quota-without-gpus": (
        lambda api: hard(api, **{"requests_nvidia.com/gpu": "0"}), "quota for gpu-l4-spot", "1 > 0"
    ),
    "quota-without-defaults": (
        lambda api: api.drop("LimitRange", "graftline"), "limit range", "no limit range has a default"
    ),
    "limit-range-below-a-profile": (
        lambda api: api.find("LimitRange", "graftline")["spec"]["limits"][0].update(max={"memory": "16Gi"}),
        "limit range", "gpu-l4-spot: memory 26Gi > 16Gi",
    ),
    "no-node-of-a-pool": (
        lambda api: api.find("Node", "node-2")["metadata"]["labels"].clear(),
        "nodes for gpu-l4-spot", "node-2: no label graftline.dev/pool=gpu-l4-spot",
    ),
    "node-too-small": (
        lambda api: api.find("Node", "node-2")["status"]["allocatable"].update(memory="16Gi"),
        "nodes for gpu-l4-spot", "memory 16Gi < 26Gi",
    ),
    "node-with-another-taint": (
        lambda api: node(api)["spec"]["taints"].append({"key": "team", "value": "a", "effect": "NoExecute"})
        or api.find("Node", "node-2")["spec"]["taints"].append({"key": "x", "effect": "NoSchedule"}),
        "nodes for", "untolerated taint",
    ),
    "flavour-with-a-taint-that-nodes-lack-K41": (
        lambda api: (
            node(api)["spec"].update(taints=[]),
            flavour(api, "cpu").update(
                nodeTaints=[{"key": "graftline.dev/pool", "value": "cpu", "effect": "NoSchedule"}]
            ),
        ),
        "flavours", "cpu has the taint graftline.dev/pool=cpu",
    ),
    "flavour-not-tolerated-K41": (
        lambda api: (
            flavour(api, "gpu-l4-spot")["nodeTaints"].append({"key": "team", "value": "b", "effect": "NoSchedule"}),
            api.find("Node", "node-2")["spec"]["taints"].append(
                {"key": "team", "value": "b", "effect": "PreferNoSchedule"}
            ),
        ),
        "flavours", "untolerated taint team=b:NoSchedule",
    ),
    "queue-smaller-than-a-job": (
        lambda api: api.find("ClusterQueue", "graftline")["spec"]["resourceGroups"][0]["flavors"][1]["resources"][
            0
        ].update(nominalQuota="1"),
        "flavours", "cpu 7 > its quota",
    ),
    "pod-refused-by-quota": (
        lambda api: setattr(api, "refuses", "exceeded quota: graftline, requested: pods=1"), "pod", "exceeded quota"
    ),
    "pod-has-no-secret-K10": (
        lambda api: setattr(api, "kubelet", lambda pod: waiting("CreateContainerConfigError", 'secret "x" not found')),
        "pod", 'secret "x" not found',
    ),
    "image-without-doctor": (
        lambda api: setattr(api, "kubelet", lambda pod: ended("No module named 'graftline.doctor'", 1)),
        "store from a pod", "No module named",
    ),
    "store-not-reached-from-a-pod": (
        lambda api: setattr(api, "kubelet", lambda pod: ended(said(store="did not serve it in 6 tries"))),
        "store from a pod", "did not serve it",
    ),
    "git-not-reached-from-a-pod": (
        lambda api: setattr(api, "kubelet", lambda pod: ended(said(repository="https://git: 401"))),
        "repository from a pod", "401",
    ),
    "no-dns-in-pods": (
        lambda api: setattr(api, "kubelet", lambda pod: ended(said(names="git.example.com: not known"))),
        "names from a pod", "not known",
    ),
    "image-not-pullable": (
        lambda api: image_gone(api, lambda pod: waiting("ErrImagePull", "manifest unknown")),
        "image train", "manifest unknown",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WRONG)
def test_each_way_to_be_wrong_is_named_by_its_row_alone(cluster: Api, doctor: Doctor, way: str) -> None:
    break_it, row, text = WRONG[way]
    break_it(cluster)
    code, points = doctor()
    counted = {name: point for name, point in points.items() if point["counts"]}
    assert code == 2
    assert all(name.startswith(row) for name in counted), counted
    assert text in " ".join(point["found"] for point in counted.values())
    assert all(point["do"] for point in counted.values())
    assert not [each for each in cluster.objects if each["kind"] == "Pod"], "a pod was left behind"


NOTES: dict[str, tuple[Callable[[Api], object], str, str]] = {
    "ended-workflows-go-after-an-hour-K17": (
        lambda api: argo(api, "spec:\n", "spec:\n  ttlStrategy: {secondsAfterFailure: 3600}\n"),
        "time to live", "secondsAfterFailure 3600",
    ),
    "no-retries-of-drivers": (
        lambda api: api.drop("ConfigMap", "workflow-controller-configmap"), "retry defaults", "none"
    ),
    "baseline": (
        lambda api: labels(api).update({"pod-security.kubernetes.io/enforce": "baseline"}), "pod security", "baseline"
    ),
    "quota-in-use": (
        lambda api: api.find("ResourceQuota", "graftline").update(status={"used": {"requests.cpu": "254"}}),
        "quota for", "254 in use",
    ),
    "a-pool-that-grows-from-nothing": (
        lambda api: (
            api.drop("Node", "node-2"),
            api.objects.append(
                {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "gpu-l4-spot"}}
            ),
        ),
        "nodes for gpu-l4-spot", "no label",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", NOTES)
def test_what_works_with_a_loss_is_a_note_and_no_error(cluster: Api, doctor: Doctor, way: str) -> None:
    change, row, text = NOTES[way]
    change(cluster)
    code, points = doctor()
    noted = {name: point for name, point in points.items() if point["state"] == "note"}
    assert code == 0
    assert noted
    assert all(name.startswith(row) and text in point["found"] for name, point in noted.items()), noted


FORBIDDEN = {
    # what may not be looked at, the row that says so, whether that makes the cluster wrong
    "secrets": ("GET .*/secrets", ("secret of the store", "secret of the keys", "secret of git", "artifacts"), 0),
    "nodes": ("GET /api/v1/nodes", ("nodes", "flavours", "images"), 0),
    "deployments": ("GET .*/deployments", ("controllers",), 0),
    "webhooks": ("GET .*webhookconfigurations", ("webhooks",), 0),
    "roles": ("GET .*/roles", ("roles",), 0),
    "policies": ("GET .*/networkpolicies", ("egress",), 0),
    "the-namespace": ("GET .*/namespaces/graftline$", ("namespace labels", "pod security"), 2),
    "pods": ("POST .*/pods", ("pod",), 2),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_we_may_not_look_at_is_said_for_its_point(cluster: Api, doctor: Doctor, what: str) -> None:
    pattern, rows, expected = FORBIDDEN[what]
    cluster.forbidden = pattern
    # Where the secret may not be read the store's address is this machine's: in this test a port that policies shut.
    cluster.objects = [each for each in cluster.objects if each["kind"] != "NetworkPolicy"]
    code, points = doctor()
    unknown = {name: point for name, point in points.items() if point["state"] != "ok"}
    assert code == expected
    assert set(unknown) == set(rows)
    assert all(point["state"] == "unknown" and "403" in point["found"] for point in unknown.values()), unknown


def test_a_controller_whose_version_cannot_be_told_is_unknown(cluster: Api, doctor: Doctor) -> None:
    cluster.drop("Deployment", "jobset-controller-manager")
    image(cluster, "kueue-controller-manager", "latest")
    code, points = doctor()
    assert code == 0
    assert {name for name, point in points.items() if point["state"] == "unknown"} == {"JobSet", "Kueue"}


def test_the_table_has_one_row_a_point_with_what_to_do(
    cluster: Api, doctor: Doctor, address: str, moto_url: str
) -> None:
    from typer.testing import CliRunner

    from graftline.cli.app import app

    argo(cluster, "OnError", "Always")
    _, points = doctor()
    done = CliRunner().invoke(app, ["doctor", "--store", moto_url, "--endpoint", f"{address}/kfp"])
    *rows, last = done.stdout.splitlines()
    assert len(rows) == len(points)
    assert last == f"{len(points)} points, 1 wrong"
    (row,) = [row for row in rows if row.startswith("wrong")]
    assert row.split()[1:3] == ["retry", "defaults"]
    assert "Always; needed: OnError; do: set it in configmap workflow-controller-configmap" in row
    assert done.exit_code == 2


def test_no_value_of_a_secret_is_printed(cluster: Api, doctor: Doctor, capfd: pytest.CaptureFixture[str]) -> None:
    _, points = doctor()
    assert "hidden" not in str(points) + "".join(capfd.readouterr())


def test_a_cluster_that_does_not_answer_is_one_line(
    address: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(config.read_text().replace(address, "http://127.0.0.1:9"))
    command = [sys.executable, "-m", "graftline.cli", "doctor", "--endpoint", "http://127.0.0.1:9"]
    done = forked.run(command, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert done.returncode == InputError.exit_code
    assert "http://127.0.0.1:9 does not answer" in line


def test_kubeflow_that_does_not_answer_is_said_and_the_rest_is_asked(cluster: Api, doctor: Doctor) -> None:
    code, points = doctor("--endpoint", "http://127.0.0.1:9")
    assert code == 2
    named = {name for name, point in points.items() if point["state"] != "ok"}
    assert named == {"Kubeflow Pipelines", "Kubeflow mode", "Kubeflow identity"}


def test_without_a_pod_nothing_is_made(cluster: Api, doctor: Doctor) -> None:
    code, points = doctor("--no-pod")
    assert code == 0
    assert cluster.made == []
    assert points["pod"]["state"] == "skipped"
    assert "store from a pod" not in points


def test_without_train_jobs_kueue_and_trainer_may_be_missing(cluster: Api, doctor: Doctor) -> None:
    for version in ("trainer.kubeflow.org/v1alpha1", "jobset.x-k8s.io/v1alpha2", "kueue.x-k8s.io/v1beta2"):
        cluster.served.pop(version)
    kinds = ("ResourceFlavor", "LocalQueue", "ClusterQueue", "ClusterTrainingRuntime")
    gone = [each for each in cluster.objects if each["kind"] in kinds]
    cluster.objects = [each for each in cluster.objects if each not in gone]
    for name in ("kueue-controller-manager", "kubeflow-trainer-controller-manager", "jobset-controller-manager"):
        cluster.drop("Deployment", name)
    assert doctor("--profile", "cpu")[0] == 0
    assert doctor()[0] == 2


def test_the_profiles_asked_for_are_those_of_submit(cluster: Api, doctor: Doctor) -> None:
    _, points = doctor("--profile", "gpu-a100")
    assert points["nodes for gpu-a100"]["state"] == "wrong"
    assert "nodes for gpu-l4-spot" not in points
    assert doctor("--profile", "cpu")[0] == 0


def test_a_pod_that_does_not_start_in_time_is_said_with_its_events(
    cluster: Api, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline.doctor.cluster import Cluster

    monkeypatch.setattr(Cluster, "wait_seconds", 0.2)
    cluster.kubelet = lambda pod: {"phase": "Pending"}
    event = {"type": "Warning", "reason": "FailedScheduling", "message": "0/2 nodes are available: 2 too many pods."}
    cluster.objects.append(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e", "namespace": "graftline"},
            **event,
            "involvedObject": {"name": "graftline-doctor-data"},
        }
    )
    code, points = doctor()
    assert code == 2
    assert "Pending after 0 s: FailedScheduling: 0/2 nodes are available" in points["pod"]["found"]
    assert len(cluster.deleted) == len(cluster.made) == 1
