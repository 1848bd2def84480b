"""What the Kubernetes API knows of a run, and Kubeflow's does not: its Workflow, its pods, its place in Kueue's queue.

Not everybody may look, and the cluster of kubectl's context need not be the run's. So all is found by the run's id, and
what may not be asked is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from graftline import runs
from graftline.errors import InputError
from graftline.kubernetes_api import Kubernetes, connect
from graftline.pipelines.trainjob.manifest import RUN_LABEL

RUN = "pipeline/runid"
"""Kubeflow's label, on the Workflow and on each of its pods; RUN_LABEL is ours, and on the pods of TrainJobs too."""
_WORKFLOW = "workflows.argoproj.io/workflow"
_STARTING = ("", "PodInitializing", "ContainerCreating")
_TRY = re.compile(r"\(\d+\)$")


def of_pod(api: Kubernetes, namespace: str, pod: str) -> dict[str, Any] | None:
    """Return the Workflow that a pod belongs to; None if it cannot be read."""
    found = api.seen(f"/api/v1/namespaces/{namespace}/pods/{pod}") if pod else None
    name = found and (found["metadata"].get("labels") or {}).get(_WORKFLOW)
    return api.seen(f"{workflows_of(namespace)}/{name}") if name else None


def engine_state(workflow: Mapping[str, Any], told: str, now: datetime) -> runs.State:
    """Return what Argo's Workflow says of a run that is about to end.

    Args:
        workflow: the object.
        told: the state in Kubeflow's `PipelineTaskFinalStatus`: COMPLETE, FAILED, or RUNNING of a run that was
            cancelled, is overdue, or lost a pod.
        now: the time, with a zone.
    """
    if told == "COMPLETE":
        return "SUCCEEDED"
    seconds, begun = workflow["spec"].get("activeDeadlineSeconds"), workflow["status"].get("startedAt")
    if seconds == 0:  # what Kubeflow writes to end a run; a deadline is never 0
        return "CANCELED"
    late = seconds and begun and now - datetime.fromisoformat(begun) >= timedelta(seconds=seconds)
    return "OVERDUE" if late and told != "FAILED" else "FAILED"


def failures(workflow: Mapping[str, Any]) -> dict[str, str]:
    """Return a line about each step whose last pod failed, by step: some leave no word of their own."""
    nodes = workflow["status"].get("nodes") or {}
    pods = (node for node in nodes.values() if node["type"] == "Pod")
    found = dict[str, str]()
    for pod in sorted(pods, key=lambda pod: pod.get("startedAt") or ""):
        step, message = _step(pod, nodes), pod.get("message") or ""
        if pod["phase"] in ("Succeeded", "Running"):
            found.pop(step, None)
        elif "OOMKilled" in message:
            found[step] = f"{step}: killed for memory ({message}); give it more `memory_gib` in its profile"
        elif message:
            found[step] = f"{step}: the pod failed ({message})"
    return found


def _step(pod: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the step that a pod belongs to: executor(0) lies under STEP(0), a driver is named STEP-driver(0)."""
    name = _TRY.sub("", pod["displayName"])
    if name == "executor":
        name = _TRY.sub("", nodes.get(pod.get("boundaryID", ""), {}).get("displayName", ""))
    return name.removesuffix("-driver")


def waits_for(namespace: str, run: str) -> str | None:
    """Return in one line why a run's pods do not start; "" if none waits, None if nothing may be asked."""
    try:
        api = connect()
    except InputError:
        return None
    core, by_run = f"/api/v1/namespaces/{namespace}", {"labelSelector": f"{RUN}={run}"}
    workflows = api.seen(workflows_of(namespace), **by_run)
    pods = [api.seen(f"{core}/pods", labelSelector=f"{label}={run}") for label in (RUN, RUN_LABEL)]
    workloads = api.seen(f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/workloads")
    if all(answer is None for answer in (workflows, *pods, workloads)):
        return None
    lines = [*_unmade(_items(workflows)), *(_queued(_items(workloads), run))]
    for pod in (pod for answer in pods for pod in _items(answer)):
        name = pod["metadata"]["name"]
        if pod["status"].get("phase") == "Pending":
            chosen = f"involvedObject.name={name},type=Warning"
            reason = _unstarted(pod["status"]) or _last(api.seen(f"{core}/events", fieldSelector=chosen))
            lines += [f"{name}: {reason}"] if reason else []
    return "; ".join(dict.fromkeys(" ".join(line.split()) for line in lines))


def _unmade(workflows: list[Any]) -> Iterator[str]:
    """Yield why Argo could not make a pod: a full quota, a webhook."""
    for node in (node for each in workflows for node in (each.get("status", {}).get("nodes") or {}).values()):
        if node["type"] == "Pod" and node["phase"] == "Pending" and node.get("message"):
            yield f"{node['displayName']}: {node['message']}"


def _queued(workloads: list[Any], run: str) -> Iterator[str]:
    """Yield why Kueue lets no TrainJob of the run begin."""
    for workload in workloads:
        labels = workload["spec"]["podSets"][0]["template"].get("metadata", {}).get("labels") or {}
        for each in workload.get("status", {}).get("conditions") or ():
            if labels.get(RUN_LABEL) == run and (each["type"], each["status"]) == ("QuotaReserved", "False"):
                yield f"waits in the queue: {each['message']}"


def _unstarted(status: Mapping[str, Any]) -> str:
    """Return why a pod's containers do not start, or why it is on no node: no image, no secret, no room."""
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in _STARTING:
            return f"{waiting['reason']}: {waiting.get('message', 'no message')}"
    conditions = status.get("conditions") or ()
    unscheduled = (each for each in conditions if (each["type"], each["status"]) == ("PodScheduled", "False"))
    return next((str(each["message"]) for each in unscheduled if each.get("message")), "")


def _last(events: Any) -> str:
    return str(_items(events)[-1].get("message", "")) if _items(events) else ""


def _items(answer: Any) -> list[Any]:
    return list(answer["items"]) if answer else []


def workflows_of(namespace: str) -> str:
    """Return the path below which Argo's Workflows lie."""
    return f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
