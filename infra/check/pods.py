"""The pods inside custom resources, as the objects that Kubernetes has a schema for.

A schema of a custom resource cannot say what a pod is. A ClusterTrainingRuntime holds templates of Jobs, and an
InferenceService a pod whose container is called `model`: both are taken out and checked as what they are.
"""

from __future__ import annotations

from typing import Any

from check.render import Document

# https://github.com/kserve/kserve/blob/master/pkg/apis/serving/v1beta1/: what is no PodSpec and no Container
_COMPONENT = {"minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "timeout", "batcher", "logger"}
_MODEL = {"modelFormat", "runtime", "protocolVersion", "storageUri"}


def inner(document: Document) -> list[Document]:
    """Return the Jobs and pods inside a custom resource as objects of their own; none for any other object."""
    value = document.value
    spec = value.get("spec") or {}
    if value.get("kind") == "ClusterTrainingRuntime":
        jobs = ((spec.get("template") or {}).get("spec") or {}).get("replicatedJobs") or []
        return [_job(document, job) for job in jobs]
    if value.get("kind") == "InferenceService":
        return [_predictor(document, spec.get("predictor") or {})]
    return []


def _job(document: Document, job: dict[str, Any]) -> Document:
    template = job.get("template") or {}
    metadata = _metadata(document, f"-{job.get('name')}") | template.get("metadata", {})
    value = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
    rest = {key: part for key, part in template.items() if key != "metadata"}
    return Document(document.source, value | rest)


def _predictor(document: Document, predictor: dict[str, Any]) -> Document:
    model = {key: part for key, part in (predictor.get("model") or {}).items() if key not in _MODEL}
    spec = {key: part for key, part in predictor.items() if key not in _COMPONENT | {"model"}}
    spec["containers"] = [{"name": "kserve-container"} | model, *spec.get("containers", [])]
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(document), "spec": spec}
    return Document(document.source, value)


def _metadata(document: Document, suffix: str = "") -> dict[str, Any]:
    """Return the outer object's name and annotations: a check that it skips is skipped for what is inside."""
    outer = document.value.get("metadata") or {}
    annotations = outer.get("annotations") or {}
    return {"name": f"{outer.get('name')}{suffix}", "namespace": "graftline", "annotations": annotations}
