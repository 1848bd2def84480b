"""Why a run's pods do not start: Kubeflow's API shows such a run as RUNNING, and knows of no reason.

Asked is the cluster of kubectl's context. It need not be the run's, and not everybody may look: what is found there is
found by the run's id, and what may not be asked is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graftline.errors import InputError
from graftline.pipelines.pods import RUN_LABEL

_RUN = "pipeline/runid"
"""Kubeflow's label, on the Workflow and on every pod of it."""
_STARTING = ("", "PodInitializing", "ContainerCreating")
_TIMEOUT = (3.0, 10.0)
_KUEUE = ("kueue.x-k8s.io", "v1beta2")
_ARGO = ("argoproj.io", "v1alpha1")


def why(namespace: str, run: str) -> str | None:
    """Return in one line why a run's pods do not start; "" if none waits, None if nothing may be asked."""
    from kubernetes import client

    from graftline.pipelines.trainjob.cluster import connect

    try:
        cluster = _Cluster(client, connect(), namespace)
    except InputError:
        return None
    found = [*cluster.unmade(run), *cluster.unstarted(run), *cluster.queued(run)]
    if not cluster.asked:
        return None
    return "; ".join(dict.fromkeys(" ".join(line.split()) for line in found))


class _Cluster:
    def __init__(self, client: Any, api: Any, namespace: str) -> None:
        self._client, self._namespace, self.asked = client, namespace, False
        self._core, self._objects = client.CoreV1Api(api), client.CustomObjectsApi(api)

    def unmade(self, run: str) -> Iterator[str]:
        """Yield why Argo could not make a pod: a full quota, a webhook."""
        for workflow in self._custom(*_ARGO, "workflows", label_selector=f"{_RUN}={run}"):
            for node in (workflow.get("status", {}).get("nodes") or {}).values():
                if node["type"] == "Pod" and node["phase"] == "Pending" and node.get("message"):
                    yield f"{node['displayName']}: {node['message']}"

    def unstarted(self, run: str) -> Iterator[str]:
        """Yield why a pod is on no node, or its containers do not start: no room, no image, no secret."""
        for label in (_RUN, RUN_LABEL):
            for pod in self._list(self._core.list_namespaced_pod, label_selector=f"{label}={run}"):
                if pod.status.phase == "Pending" and (
                    reason := _of_pod(pod) or self._event(pod.metadata.name)
                ):
                    yield f"{pod.metadata.name}: {reason}"

    def queued(self, run: str) -> Iterator[str]:
        """Yield why Kueue lets no TrainJob of the run begin."""
        for workload in self._custom(*_KUEUE, "workloads"):
            if _run_of(workload) == run:
                for condition in workload.get("status", {}).get("conditions") or ():
                    if (condition["type"], condition["status"]) == ("QuotaReserved", "False"):
                        yield f"waits in the queue: {condition['message']}"

    def _event(self, pod: str) -> str:
        """Return the last warning about a pod."""
        chosen = f"involvedObject.name={pod},type=Warning"
        events = self._list(self._core.list_namespaced_event, field_selector=chosen)
        return str(events[-1].message) if events else ""

    def _custom(self, group: str, version: str, plural: str, **chosen: str) -> list[dict[str, Any]]:
        listed = self._objects.list_namespaced_custom_object

        def ask(namespace: str, **named: Any) -> Any:
            return listed(group, version, namespace, plural, **named)

        return self._list(ask, **chosen)

    def _list(self, ask: Any, **chosen: str) -> list[Any]:
        """Return what is listed; nothing where it may not be, or where nobody answers."""
        from urllib3.exceptions import HTTPError

        try:
            found = ask(self._namespace, _request_timeout=_TIMEOUT, **chosen)
        except (self._client.ApiException, HTTPError, OSError, ValueError):
            return []
        self.asked = True
        return list(found["items"] if isinstance(found, dict) else found.items)


def _of_pod(pod: Any) -> str:
    for container in [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]:
        waiting = container.state and container.state.waiting
        if waiting and (waiting.reason or "") not in _STARTING:
            return f"{waiting.reason}: {waiting.message or 'no message'}"
    for condition in pod.status.conditions or ():
        if (condition.type, condition.status) == ("PodScheduled", "False") and condition.message:
            return str(condition.message)
    return ""


def _run_of(workload: Mapping[str, Any]) -> str:
    sets = workload.get("spec", {}).get("podSets") or [{}]
    labels = sets[0].get("template", {}).get("metadata", {}).get("labels") or {}
    return str(labels.get(RUN_LABEL, ""))
