"""What the launcher asks of the Kubernetes API: TrainJobs and their pods, in one namespace.

Every call is tried again while the API server does not answer: a training of days must not end with an outage of
minutes. https://kubernetes.io/docs/reference/using-api/api-concepts/ says what 409 and 410 mean.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from kubernetes import client, config, watch
from kubernetes.client import ApiClient, ApiException
from urllib3.exceptions import HTTPError

from graftline.errors import GraftlineError, InputError
from graftline.pipelines.trainjob.manifest import RUN_LABEL, run_label

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
OUTAGE_SECONDS = 600.0
"""How long the API server may not answer."""
_PAUSE_SECONDS, _LONGEST_PAUSE = 0.5, 15.0
_TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and between two packets."""
_QUIET_SECONDS = 60.0
"""How long a log that is followed may bring nothing: a connection that died without a word looks the same."""
_POD_JOB = "jobset.sigs.k8s.io/jobset-name"
_WORKLOADS, _OWNER = ("kueue.x-k8s.io", "v1beta2"), "kueue.x-k8s.io/job-uid"
_AT_ONCE = (0.5, 1.0)
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+Z ")
"""How a line of a log begins. The kubelet's own words about a log that is gone have no time."""

Result = TypeVar("Result")


def connect() -> ApiClient:
    """Return a client of the cluster that this pod runs in, or of the one that KUBECONFIG names. Raises InputError."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise InputError(
                "cluster", f"no Kubernetes API to talk to ({' '.join(str(error).split())})",
                fix="run this in a pod with a service account's token, or set KUBECONFIG",
            ) from None  # fmt: skip
    configuration.retries = False  # ours tell what may be tried again
    return client.ApiClient(configuration)


def delete_jobs(cluster: Cluster, run: str) -> list[str]:
    """Delete the TrainJobs of a run that has ended, whatever became of their launchers; return their names."""
    names = [job["metadata"]["name"] for job in cluster.find(f"{RUN_LABEL}={run_label(run)}")]
    for name in names:
        cluster.delete(name)
    return names


class Cluster:
    """The TrainJobs of one namespace. Every method raises InputError for what the API server refuses, GraftlineError
    when it has not answered for `OUTAGE_SECONDS`."""

    def __init__(self, api: ApiClient, namespace: str, *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self.namespace, self._pause = namespace, pause_seconds
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._where = (GROUP, VERSION, namespace, PLURAL)

    def create(self, manifest: dict[str, Any]) -> bool:
        """Make a TrainJob; return False if there is one of that name: perhaps by a try whose answer was lost."""
        return self._tried("create", lambda: self._jobs.create_namespaced_custom_object(
            *self._where, manifest, _request_timeout=_TIMEOUT), refused=409) is not None  # fmt: skip

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a TrainJob, or None if there is none of that name."""
        return self._tried("get", lambda: self._jobs.get_namespaced_custom_object(
            *self._where, name, _request_timeout=_TIMEOUT), refused=404)  # fmt: skip

    def find(self, selector: str) -> list[dict[str, Any]]:
        """Return the TrainJobs with these labels; none where Trainer is not installed."""
        found: Any = self._tried("list", lambda: self._jobs.list_namespaced_custom_object(
            *self._where, label_selector=selector, _request_timeout=_TIMEOUT), refused=404)  # fmt: skip
        return list(found["items"]) if found else []

    def delete(self, name: str) -> None:
        """Delete a TrainJob with its pods, if it is there; they get SIGTERM and their grace period."""
        self._tried("delete", lambda: self._jobs.delete_namespaced_custom_object(
            *self._where, name, propagation_policy="Foreground", _request_timeout=_TIMEOUT),
            refused=404)  # fmt: skip

    def at_once(self, verb: str, name: str, **options: str) -> None:
        """Ask once to "get" or "delete" a TrainJob, without an answer: this process may have 0.2 seconds to live."""
        with suppress(Exception):  # whatever it is: `delete` follows, if there is time
            call = getattr(self._jobs, f"{verb}_namespaced_custom_object")
            call(*self._where, name, _request_timeout=_AT_ONCE, **options)

    def why_waiting(self, job: dict[str, Any]) -> str:
        """Return what Kueue's Workload of a TrainJob says of why it waits; "" if nothing, or if it may not be read."""
        try:
            found = self._jobs.list_namespaced_custom_object(
                *_WORKLOADS, self.namespace, "workloads", label_selector=f"{_OWNER}={job['metadata'].get('uid')}",
                _request_timeout=_TIMEOUT,
            )  # fmt: skip
        except (ApiException, HTTPError, OSError):
            return ""
        conditions = [c for each in found["items"] for c in each.get("status", {}).get("conditions", [])]
        said = {(c["type"], c["status"]): " ".join(c.get("message", "").split()) for c in conditions}
        return said.get(("QuotaReserved", "False")) or said.get(("Evicted", "True"), "")

    def pods(self, job: str) -> list[Any]:
        """Return the pods (`V1Pod`) of a TrainJob."""
        found: Any = self._tried("list", lambda: self._core.list_namespaced_pod(
            self.namespace, label_selector=f"{_POD_JOB}={job}", _request_timeout=_TIMEOUT))  # fmt: skip
        return list(found.items)

    def wait(self, job: dict[str, Any], seconds: float) -> None:
        """Return when a TrainJob has changed since it was read as `job`, and after `seconds` at the latest.

        A watch that breaks, or is too far behind (410), only returns early: who waits reads the job again anyway.
        """
        began, metadata = time.monotonic(), job["metadata"]
        events = watch.Watch().stream(
            self._jobs.list_namespaced_custom_object, *self._where,
            field_selector=f"metadata.name={metadata['name']}", resource_version=metadata["resourceVersion"],
            timeout_seconds=max(1, math.ceil(seconds)), _request_timeout=(_TIMEOUT[0], seconds + 5),
        )  # fmt: skip
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
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=container, follow=follow, timestamps=True, _preload_content=False,
                _request_timeout=(_TIMEOUT[0], _QUIET_SECONDS if follow else _TIMEOUT[1]), **since,
            )  # fmt: skip
            for chunk in answer.stream(amt=None):
                *lines, left = (left + chunk).split(b"\n")
                yield from filter(_LINE.match, (line.decode(errors="replace") for line in lines))
        except (ApiException, HTTPError, OSError):
            return  # a line that was cut is not shown: the next connection brings it whole
        yield from filter(_LINE.match, [left.decode(errors="replace")])

    def _tried(self, verb: str, call: Callable[[], Result], refused: int | None = None) -> Result | None:
        """Return what `call` returns, or None where the server answers `refused`; again after faults that may pass."""
        end = time.monotonic() + OUTAGE_SECONDS
        for attempt in itertools.count():
            try:
                return call()
            except ApiException as error:
                if error.status == refused:
                    return None
                if error.status and error.status < 500 and error.status != 429:
                    raise InputError(
                        f"namespace {self.namespace}", f"cannot {verb} a TrainJob or its pods: {_reason(error)}",
                        fix="see docs/cluster.md for what the service account and the cluster need",
                    ) from None  # fmt: skip
                reason = _reason(error)
            except (HTTPError, OSError) as error:
                reason = type(error).__name__
            if time.monotonic() > end:
                raise GraftlineError(
                    f"the Kubernetes API has not answered for {OUTAGE_SECONDS:.0f} s ({reason}); run this again: "
                    "it goes on with the job that runs"
                )
            time.sleep(min(_LONGEST_PAUSE, self._pause * 2**attempt))
        raise AssertionError


def _reason(error: Any) -> str:
    """Return the status and, in one line, what the API server says."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return f"{error.status} {' '.join(str(message).split())[:300]}"
