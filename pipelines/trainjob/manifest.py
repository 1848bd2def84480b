"""A TrainJob (trainer.kubeflow.org/v1alpha1, Kubeflow Trainer 2.2 or later) as a dictionary.

https://github.com/kubeflow/trainer/blob/master/pkg/apis/trainer/v1alpha1/trainjob_types.go
What all jobs have in common (user, read-only root, credentials, grace period) is in the runtime `graftline-torch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graftline.digests import sha256_bytes
from graftline.profiles import Affinity, Pod

API = "trainer.kubeflow.org/v1alpha1"
RUNTIME = "graftline-torch"
QUEUE = "graftline"
RUN_LABEL = "graftline.dev/run"
JOB_LABEL = "graftline.dev/job"
"""Which step of which run: the same for every attempt at it."""
ATTEMPT, PREEMPTIONS, FAILURES = (f"graftline.dev/{name}" for name in ("attempt", "preemptions", "failures"))
"""Annotations: the attempt's number (from 0), and how many of those before it were pre-empted or failed."""
_NODE = "node"
"""The replicated job, and the container in it, that the runtime names so; Trainer wants these names."""
_SHORT = 16
_MANAGER = "graftline.dev/launcher"


@dataclass(frozen=True)
class Job:
    """One step of one run, to be done by pods of its own."""

    run: str
    """$GRAFTLINE_RUN: names this run, and no other."""
    task: str
    component: str
    image: str
    """With its digest."""
    pod: Pod
    """What each pod asks for, and how many there are."""
    arguments: Sequence[str]
    """Of `python -m graftline.pipelines.trainjob.pod`."""
    environment: Mapping[str, str]
    processes: int = 1
    """On each node."""
    attempt: int = 0
    preemptions: int = 0
    """Attempts before this one that were pre-empted."""
    failures: int = 0
    """Attempts before this one that failed."""

    @property
    def base(self) -> str:
        """The name without the attempt: the same for the same step of the same run."""
        return f"{self.component}-{sha256_bytes(self.run.encode())[:_SHORT]}"

    @property
    def name(self) -> str:
        return f"{self.base}-{self.attempt}"

    def again(self, *, preempted: bool) -> Job:
        """Return the next attempt, this one having been pre-empted or having failed."""
        return replace(
            self,
            attempt=self.attempt + 1,
            preemptions=self.preemptions + preempted,
            failures=self.failures + (not preempted),
        )


def counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields `attempt`, `preemptions` and `failures` of a job that the cluster has."""
    annotations = manifest["metadata"].get("annotations", {})
    names = {"attempt": ATTEMPT, "preemptions": PREEMPTIONS, "failures": FAILURES}
    return {field: int(annotations.get(name, 0)) for field, name in names.items()}


def manifest(job: Job, namespace: str) -> dict[str, Any]:
    """Return the TrainJob of one attempt."""
    pod = job.pod
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": {
            "name": job.name,
            "namespace": namespace,
            "labels": _labels(job) | {JOB_LABEL: job.base, "kueue.x-k8s.io/queue-name": QUEUE},
            "annotations": {ATTEMPT: str(job.attempt), PREEMPTIONS: str(job.preemptions), FAILURES: str(job.failures)},
        },
        "spec": {
            "runtimeRef": {"apiGroup": API.partition("/")[0], "kind": "ClusterTrainingRuntime", "name": RUNTIME},
            # ends what a launcher that was killed for good has left behind
            "activeDeadlineSeconds": round(pod.timeout_hours * 3600),
            "trainer": {
                "image": job.image,
                "command": ["python", "-m", "graftline.pipelines.trainjob.pod"],
                "args": list(job.arguments),
                "env": [{"name": name, "value": value} for name, value in sorted(job.environment.items())],
                "numNodes": pod.nodes,
                "numProcPerNode": job.processes,
                "resourcesPerNode": _resources(pod),
            },
            "runtimePatches": [{"manager": _MANAGER, "trainingRuntimeSpec": _on_nodes(_pod_patch(job))}],
        },
    }


def run_label(run: str) -> str:
    """Return a run's id as the value of a label, which is no longer than this and ends so."""
    return run[:63].rstrip("-_.")


def _labels(job: Job) -> dict[str, str]:
    return {"graftline.dev/task": job.task, RUN_LABEL: run_label(job.run), "graftline.dev/component": job.component}


def _resources(pod: Pod) -> dict[str, Any]:
    both = {"ephemeral-storage": f"{pod.tmp_gib}Gi"}
    if pod.resource:
        both[pod.resource] = str(pod.accelerators)
    return {
        name: {"cpu": f"{round(given.cpu * 1000)}m", "memory": f"{given.memory_gib:g}Gi", **both}
        for name, given in (("requests", pod.requested), ("limits", pod))
    }


def _pod_patch(job: Job) -> dict[str, Any]:
    pod = job.pod
    spec: dict[str, Any] = {
        "tolerations": [toleration.model_dump(exclude_none=True) for toleration in pod.tolerations],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": f"{pod.tmp_gib}Gi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{pod.shm_gib}Gi"}},
        ],
    }
    if pod.node_selector:
        spec["nodeSelector"] = dict(pod.node_selector)
    if pod.affinity:
        spec["affinity"] = {"nodeAffinity": _node_affinity(pod.affinity)}
    return {"metadata": {"labels": _labels(job)}, "spec": spec}


def _on_nodes(pod_patch: dict[str, Any]) -> dict[str, Any]:
    job = {"name": _NODE, "template": {"spec": {"template": pod_patch}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _node_affinity(wishes: Sequence[Affinity]) -> dict[str, Any]:
    """Return what kfp-kubernetes makes of the same wishes: those with a weight preferred, the others required."""
    terms: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for wish in wishes:
        values = {"values": list(wish.values)} if wish.values else {}
        expression = {"key": wish.key, "operator": wish.operator, **values}
        weighed = {"weight": wish.weight, "preference": {"matchExpressions": [expression]}}
        terms[wish.weight is None].append(expression if wish.weight is None else weighed)
    affinity: dict[str, Any] = {}
    if terms[False]:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = terms[False]
    if terms[True]:
        required = {"nodeSelectorTerms": [{"matchExpressions": terms[True]}]}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = required
    return affinity
