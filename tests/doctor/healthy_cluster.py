"""A cluster in which nothing is wrong: this repository's own manifests, and the versions that runs were seen on."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import yaml
from cluster_api import Api

from graftline.environment import ROOT
from graftline.images import load_images

SPACE = "graftline"
OURS = ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "ResourceQuota", "LimitRange", "ConfigMap")
WORKFLOW_DEFAULTS = """\
spec:
  templateDefaults:
    retryStrategy: {limit: "2", retryPolicy: OnError}
"""
"""As Kubeflow Pipelines 2.17.0 has it, but for the times to live (recordings/runs-2-gate-refused-workflow.json shows
what it makes of a workflow)."""
_SERVED = {
    "argoproj.io/v1alpha1": ["Workflow"],
    "pipelines.kubeflow.org/v2beta1": ["Pipeline", "PipelineVersion"],
    "trainer.kubeflow.org/v1alpha1": ["TrainJob", "ClusterTrainingRuntime", "TrainingRuntime"],
    "jobset.x-k8s.io/v1alpha2": ["JobSet"],
    "kueue.x-k8s.io/v1beta1": ["LocalQueue", "ClusterQueue"],
    "kueue.x-k8s.io/v1beta2": ["LocalQueue", "ClusterQueue", "ResourceFlavor"],
}


def healthy() -> Api:
    """Return it anew."""
    objects = [
        *_namespaces(),
        *_nodes(),
        *_controllers(),
        *_secrets(),
        *_own("infra/base", OURS),
        *_own("infra/namespace", OURS),
        *_own("infra/components/kueue", ("ResourceFlavor", "LocalQueue", "ClusterQueue")),
        *_own("infra/components/kueue-gpu", ("ResourceFlavor",)),
        *_own("infra/components/trainer", ("ClusterTrainingRuntime",)),
        _object(
            "v1", "ConfigMap", "workflow-controller-configmap", "kubeflow", data={"workflowDefaults": WORKFLOW_DEFAULTS}
        ),
        _slice("kubernetes", "default", "10.96.0.1", 6443),
    ]
    api = Api(objects, copy.deepcopy(_SERVED))
    api.health = {"commit_sha": "unknown", "tag_name": "2.17.0", "multi_user": True}
    quotas = yaml.safe_load((ROOT / "infra/components/kueue-gpu/quotas.yaml").read_text())
    queue = api.find("ClusterQueue", "graftline")
    queue["spec"]["resourceGroups"][0]["flavors"] += [each["value"] for each in quotas]
    for kind in ("LocalQueue", "ClusterQueue"):
        api.find(kind, "graftline")["status"] = {"conditions": [{"type": "Active", "status": "True"}]}
    return api


def secret(values: dict[str, str]) -> dict[str, str]:
    """Return a secret's data as the API has it."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def _object(version: str, kind: str, name: str, space: str | None = None, **more: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": space} if space else {}) | more.pop("metadata", {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _own(folder: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for path in sorted(Path(ROOT, folder).glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            if isinstance(document, dict) and document.get("kind") in kinds:
                if document["kind"] not in ("ResourceFlavor", "ClusterQueue", "ClusterTrainingRuntime"):
                    document["metadata"]["namespace"] = SPACE
                found.append(document)
    return found


def _namespaces() -> list[dict[str, Any]]:
    (own,) = _own("infra/namespace", ("Namespace",))
    own["metadata"].pop("namespace")
    own["metadata"]["labels"]["app.kubernetes.io/part-of"] = "kubeflow-profile"
    names = ("kubeflow", "kueue-system")
    return [own] + [
        _object("v1", "Namespace", name, metadata={"labels": {"kubernetes.io/metadata.name": name}}) for name in names
    ]


def _nodes() -> list[dict[str, Any]]:
    l4 = ["graftline.dev/pool=gpu-l4-spot", "graftline.dev/spot=true", "nvidia.com/gpu=present"]
    return [_node("node-1", "cpu", ["graftline.dev/pool=cpu"]), _node("node-2", "gpu-l4-spot", l4, gpus="1")]


def _node(name: str, pool: str, taints: list[str], gpus: str = "0") -> dict[str, Any]:
    images = [{"names": [image]} for image in load_images().model_dump().values()]
    parts = [(*taint.split("="),) for taint in taints]
    return _object(
        "v1",
        "Node",
        name,
        metadata={"labels": {"graftline.dev/pool": pool}},
        spec={"taints": [{"key": key, "value": value, "effect": "NoSchedule"} for key, value in parts]},
        status={
            "allocatable": {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "nvidia.com/gpu": gpus},
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": images,
        },
    )


def _controllers() -> list[dict[str, Any]]:
    """Deployments, their webhooks, and who answers."""
    found = []
    for name, space, image in (
        ("kueue-controller-manager", "kueue-system", "registry.k8s.io/kueue/kueue:v0.19.2"),
        (
            "kubeflow-trainer-controller-manager",
            "kubeflow-system",
            "ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.3.0",
        ),
        ("jobset-controller-manager", "kubeflow-system", "registry.k8s.io/jobset/jobset:v0.12.0"),
        ("ml-pipeline", "kubeflow", "ghcr.io/kubeflow/kfp-api-server:2.17.0"),
    ):
        containers = [{"name": "manager", "image": image}]
        found.append(
            _object("apps/v1", "Deployment", name, space, spec={"template": {"spec": {"containers": containers}}})
        )
        service = f"{name}-webhook"
        kind = "MutatingWebhookConfiguration" if "jobset" in name else "ValidatingWebhookConfiguration"
        webhook = {"name": f"x.{name}", "clientConfig": {"service": {"namespace": space, "name": service}}}
        found.append(_object("admissionregistration.k8s.io/v1", kind, name, webhooks=[webhook]))
        found.append(_slice(service, space, "10.0.0.9", 9443))
    return found


def _slice(service: str, space: str, address: str, port: int) -> dict[str, Any]:
    return _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service}-x",
        space,
        metadata={"labels": {"kubernetes.io/service-name": service}},
        endpoints=[{"addresses": [address], "conditions": {"ready": True}}],
        ports=[{"port": port}],
    )


def _secrets() -> list[dict[str, Any]]:
    key = {"keyid": "ab12", "own": True, "retired": None, "revoked": None}
    return [
        _object("v1", "Secret", "graftline-store", SPACE, data=secret(
            {"AWS_ACCESS_KEY_ID": "AKIAHIDDEN", "AWS_SECRET_ACCESS_KEY": "very-hidden",
             "AWS_ENDPOINT_URL": "https://s3.example.com"})),
        _object("v1", "Secret", "graftline-signing", SPACE, data=secret(
            {"keyring.json": json.dumps({"keys": [key]}), "ab12.key": "private-hidden"})),
        _object("v1", "Secret", "graftline-git", SPACE, data=secret(
            {"token": "token-hidden", "credentials": "https://u:token-hidden@git.example.com"})),
        _object("v1", "Secret", "mlpipeline-minio-artifact", SPACE, data=secret({"accesskey": "x", "secretkey": "y"})),
    ]  # fmt: skip
