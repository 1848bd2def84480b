"""What the launcher asks of the Kubernetes API: TrainJobs and their pods, in one namespace.

Every call is tried again while the API server does not answer: a training of days must not end with an outage of
minutes. https://kubernetes.io/docs/reference/using-api/api-concepts/ says what 409 and 410 mean.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kubernetes import client, watch
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from graftline.errors import GraftlineError, InputError
from graftline.kubernetes_api import TIMEOUT, Kubernetes, NoAnswerError, RefusedError
from graftline.pipelines.trainjob.manifest import API, RUN_LABEL, run_label

OUTAGE_SECONDS = 600.0
"""How long the API server may not answer."""
_PAUSE_SECONDS, _LONGEST_PAUSE = 0.5, 15.0
_QUIET_SECONDS = 60.0
"""How long a log that is followed may bring nothing: a connection that died without a word looks the same."""
_POD_JOB = "jobset.sigs.k8s.io/jobset-name"
_OWNER = "kueue.x-k8s.io/job-uid"
_WITH_PODS = {"propagationPolicy": "Foreground"}
_AT_ONCE = (0.5, 1.0)
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+Z ")
"""How a line of a log begins. The kubelet's own words about a log that is gone have no time."""


def delete_jobs(cluster: Cluster, run: str) -> list[str]:
    """Delete the TrainJobs of a run that has ended, whatever became of their launchers; return their names."""
    names = [job["metadata"]["name"] for job in cluster.find(f"{RUN_LABEL}={run_label(run)}")]
    for name in names:
        cluster.delete(name)
    return names


class Cluster:
    """The TrainJobs of one namespace. Every method raises InputError for what the API server refuses, GraftlineError
    when it has not answered for `OUTAGE_SECONDS`."""

    def __init__(self, api: Kubernetes, namespace: str, *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self.namespace, self._pause, self._api = namespace, pause_seconds, api
        self._jobs = f"/apis/{API}/namespaces/{namespace}/trainjobs"

    def create(self, manifest: dict[str, Any]) -> bool:
        """Make a TrainJob; return False if there is one of that name: perhaps by a try whose answer was lost."""
        return self._tried("create", "POST", self._jobs, body=manifest, refused=409) is not None

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a TrainJob, or None if there is none of that name."""
        found: dict[str, Any] | None = self._tried("get", "GET", f"{self._jobs}/{name}", refused=404)
        return found

    def find(self, selector: str) -> list[dict[str, Any]]:
        """Return the TrainJobs with these labels; none where Trainer is not installed."""
        found = self._tried("list", "GET", self._jobs, query={"labelSelector": selector}, refused=404)
        return list(found["items"]) if found else []

    def delete(self, name: str) -> None:
        """Delete a TrainJob with its pods, if it is there; they get SIGTERM and their grace period."""
        self._tried("delete", "DELETE", f"{self._jobs}/{name}", query=_WITH_PODS, refused=404)

    def at_once(self, method: str, name: str) -> None:
        """GET or DELETE a TrainJob, asked once and without an answer: this process may have 0.2 seconds to live."""
        with suppress(Exception):  # whatever it is: `delete` follows, if there is time
            query = _WITH_PODS if method == "DELETE" else {}
            self._api.call(method, f"{self._jobs}/{name}", query=query, timeout=_AT_ONCE)

    def why_waiting(self, job: dict[str, Any]) -> str:
        """Return what Kueue's Workload of a TrainJob says of why it waits; "" if nothing, or if it may not be read."""
        path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{self.namespace}/workloads"
        found = self._api.seen(path, labelSelector=f"{_OWNER}={job['metadata'].get('uid')}") or {"items": ()}
        conditions = [c for each in found["items"] for c in each.get("status", {}).get("conditions", [])]
        said = {(c["type"], c["status"]): " ".join(c.get("message", "").split()) for c in conditions}
        return said.get(("QuotaReserved", "False")) or said.get(("Evicted", "True"), "")

    def pods(self, job: str) -> list[Any]:
        """Return the pods (`V1Pod`) of a TrainJob."""
        path, chosen = f"/api/v1/namespaces/{self.namespace}/pods", {"labelSelector": f"{_POD_JOB}={job}"}
        return list(self._tried("list", "GET", path, query=chosen, kind="V1PodList").items)

    def wait(self, job: dict[str, Any], seconds: float) -> None:
        """Return when a TrainJob has changed since it was read as `job`, and after `seconds` at the latest.

        A watch that breaks, or is too far behind (410), only returns early: who waits reads the job again anyway.
        """
        began, metadata = time.monotonic(), job["metadata"]
        events = watch.Watch().stream(
            client.CustomObjectsApi(self._api.api).list_namespaced_custom_object,
            *API.split("/"),
            self.namespace,
            "trainjobs",
            field_selector=f"metadata.name={metadata['name']}",
            resource_version=metadata["resourceVersion"],
            timeout_seconds=max(1, math.ceil(seconds)),
            _request_timeout=(TIMEOUT[0], seconds + 5),
        )
        try:
            for _ in events:
                return
        except (ApiException, HTTPError, OSError, ValueError):  # ValueError: half a line
            time.sleep(max(0.0, min(self._pause, seconds - (time.monotonic() - began))))

    def log(self, pod: str, container: str, since_seconds: int | None, *, follow: bool) -> Iterator[str]:
        """Yield the lines of a container's log, each after its time; ends when the container does, when the connection
        breaks, or when it brings nothing for `_QUIET_SECONDS`."""
        since = {} if since_seconds is None else {"since_seconds": max(1, since_seconds)}
        left = b""
        try:
            answer = client.CoreV1Api(self._api.api).read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=follow,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(TIMEOUT[0], _QUIET_SECONDS if follow else TIMEOUT[1]),
                **since,
            )
            for chunk in answer.stream(amt=None):
                *lines, left = (left + chunk).split(b"\n")
                yield from filter(_LINE.match, (line.decode(errors="replace") for line in lines))
        except (ApiException, HTTPError, OSError):
            return  # a line that was cut is not shown: the next connection brings it whole
        yield from filter(_LINE.match, [left.decode(errors="replace")])

    def _tried(self, verb: str, *request: str, refused: int | None = None, **more: Any) -> Any:
        """Return the answer to a request, or None where it is `refused`; again after faults that may pass."""
        end = time.monotonic() + OUTAGE_SECONDS
        for attempt in itertools.count():
            try:
                return self._api.call(*request, **more)
            except RefusedError as error:
                if error.status == refused:
                    return None
                if error.status and error.status < 500 and error.status != 429:
                    raise InputError(
                        f"namespace {self.namespace}",
                        f"cannot {verb} a TrainJob or its pods: {error}",
                        fix="see docs/cluster.md for what the service account and the cluster need",
                    ) from None
                reason = str(error)
            except NoAnswerError as error:
                reason = error.cause
            if time.monotonic() > end:
                raise GraftlineError(
                    f"the Kubernetes API has not answered for {OUTAGE_SECONDS:.0f} s ({reason}); run this again: "
                    "it goes on with the job that runs"
                )
            time.sleep(min(_LONGEST_PAUSE, self._pause * 2**attempt))
        raise AssertionError
