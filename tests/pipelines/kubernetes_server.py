"""A stand-in for the Kubernetes API server with Trainer and Kueue, for tests. It is no cluster.

What a TrainJob, its pods and its Workload look like in each state is taken from recordings of Kubernetes 1.36,
Trainer 2.3, JobSet 0.12 and Kueue 0.19 (recordings/trainjobs-*): which conditions stand in which order, what goes
before what. `Backend.replay` plays a recording as it was; `queue`, `start`, `end` and the others play the same states
with the exit codes that a test wants. Nothing runs by itself, but `Kubelet`, which runs a job's pods as processes of
this machine. A TrainJob is checked against infra/schemas/TrainJob.json, where a field that Trainer does not have is
an error.

Any other object is what a test has put in: `put({"apiVersion": "v1", "kind": "Event", ...})`. GET, LIST (with
labelSelector, fieldSelector), watch, POST, PATCH (merge) and DELETE of every group, version and plural that is
`served`; a path outside objects (`/version`) has what a test puts into `answers`.

`fault` may name what goes wrong with a request: an HTTP status; `drop` closes the connection and does nothing,
`act-then-drop` does it and closes.
"""

from __future__ import annotations

import copy
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import forked
import jsonschema
import yaml
from referencing import Registry, Resource

from graftline.environment import ROOT

SCHEMAS = ROOT / "infra/schemas"
RECORDINGS = Path(__file__).parent / "recordings"
NAMESPACE = "graftline"
TRAINJOBS = ("trainer.kubeflow.org/v1alpha1", "trainjobs")
JOBSETS = ("jobset.x-k8s.io/v1alpha2", "jobsets")
WORKLOADS = ("kueue.x-k8s.io/v1beta2", "workloads")
PODS = ("v1", "pods")
SERVED = (
    TRAINJOBS, JOBSETS, WORKLOADS, PODS,
    *(("v1", plural) for plural in (
        "namespaces", "nodes", "events", "configmaps", "secrets", "serviceaccounts", "services", "resourcequotas",
        "persistentvolumeclaims",
    )),
    ("argoproj.io/v1alpha1", "workflows"), ("batch/v1", "jobs"), ("apps/v1", "deployments"),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions"), ("networking.k8s.io/v1", "networkpolicies"),
)  # fmt: skip
_PATH = re.compile(r"/(?:api/(v1)|apis/([^/]+/[^/]+))(?:/namespaces/([^/]+)(?=/))?/([^/]+)(?:/([^/]+))?(?:/([^/]+))?")
_NODE = "node"
_TOLD_TO_END = (75, 143)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]

    @property
    def watches(self) -> bool:
        return self.query.get("watch", "").lower() == "true"

    @property
    def verb(self) -> str:
        if self.path.endswith("/log"):
            return "log"
        return "watch" if self.watches else self.method


class Refused(Exception):  # noqa: N818  (an answer of the server, no failure of it)
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Backend:
    """The state of the cluster, and what moves it."""

    def __init__(self, fault: Callable[[Request], object] = lambda request: None) -> None:
        self.fault = fault
        self.objects: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = {}
        """(apiVersion, plural) to (namespace, name) to the object."""
        self.served = set(SERVED)
        """What the server has: a list of anything else is 404, as without its CustomResourceDefinition."""
        self.answers: dict[str, Any] = {}
        """Path to answer, where it is none of an object."""
        self.logs: dict[str, list[tuple[float, str]]] = {}
        """Pod to time and line."""
        self.requests: list[Request] = []
        self.created: list[dict[str, Any]] = []
        """Every TrainJob that was ever made, in order."""
        self.deleted: list[str] = []
        """Names of all objects that were deleted by a request, in order."""
        self.lingers = False
        """Whether a job that is deleted stays, with a deletionTimestamp, until `remove`."""
        self.runs: set[str] = set()
        """Jobs whose pods a `Kubelet` runs: they linger until it has ended them."""
        self.closed = False
        self.changed = threading.Condition()
        self._version = 1
        self._validator = _validator()

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The TrainJobs by name."""
        return {name: job for (_, name), job in self._of(TRAINJOBS).items()}

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        """The pods by name."""
        return {name: pod for (_, name), pod in self._of(PODS).items()}

    def put(self, thing: dict[str, Any]) -> dict[str, Any]:
        """Put an object in, in place of one of its name."""
        kind = (thing["apiVersion"], _plural(thing["kind"]))
        metadata = thing["metadata"]
        with self.changed:
            self.served.add(kind)
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", _now())
            self._of(kind)[metadata.get("namespace", ""), metadata["name"]] = thing
            return self._touch(thing)

    def wait_for(self, condition: Callable[[], object], seconds: float = 60) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "what the test waits for did not happen"

    # What Kueue, Trainer, JobSet and the kubelet do

    def queue(self, name: str, why: str = "") -> None:
        """Have a job wait for quota (trainjobs-5-workload-pending)."""
        with self.changed:
            self._suspended(self.jobs[name])
            if why:
                _condition(self.workload(name), "QuotaReserved", "False", "Pending", why)

    def start(self, name: str) -> None:
        """Admit a job and run its pods (trainjobs-2, -3: `Suspended` stays in the list, as False)."""
        with self.changed:
            job, workload = self.jobs[name], self.workload(name)
            _condition(workload, "QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue graftline")
            _condition(workload, "Admitted", "True", "Admitted", "The workload is admitted")
            _patch_of_kueue(job, workload)
            job["spec"]["suspend"] = False
            self._touch(job)  # before its condition: trainjobs-5 at 00:29:27
            _condition(job, "Suspended", "False", "Resumed", "TrainJob is resumed")
            _jobs_status(job, active=1, ready=1)
            for index in range(job["spec"]["trainer"]["numNodes"]):
                self.put(_pod(name, index))
            self._touch(job)

    def say(self, name: str, line: str, index: int = 0) -> None:
        """Add a line to a pod's log."""
        with self.changed:
            self.logs.setdefault(_pod_name(name, index), []).append((time.time(), line))
            self.changed.notify_all()

    def end(
        self,
        name: str,
        codes: list[int],
        *,
        job_reason: str = "ReachedMaxRestarts",
        reason: str = "Error",
        disrupted: bool = False,
        evicted: str = "",
    ) -> None:
        """End a job's pods with these exit codes, and the job with them.

        The first pod that fails decides; it gets `reason`, and the condition DisruptionTarget or the kubelet's message
        of an eviction. Pods that were told to end, those that end with 75 or 143 and one that is disrupted, are gone
        before the job has failed (trainjobs-3, -6-drained).
        """
        with self.changed:
            job, pods = self.jobs[name], self._pods_of(name)
            failed = next((i for i, code in enumerate(codes) if code and code not in _TOLD_TO_END), None)
            failed = failed if failed is not None else next((i for i, code in enumerate(codes) if code), None)
            for index, (pod, code) in enumerate(zip(pods, codes, strict=True)):
                _terminate(pod, code, reason if index == failed else "Error")
                if index == failed and disrupted:
                    _condition(pod, "DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting")
                if index == failed and evicted:
                    pod["status"] |= {"reason": "Evicted", "message": evicted}
                if code in _TOLD_TO_END or (index == failed and disrupted):
                    pod["metadata"]["deletionTimestamp"] = _now()
                self._touch(pod)
            if not any(codes):
                _condition(job, "Complete", "True", "AllJobsCompleted", "jobset completed successfully")
                _jobs_status(job, succeeded=1)
                self._touch(job)
                return
            if job_reason == "DeadlineExceeded":  # trainjobs-5: the counts stay as they were
                self._of(JOBSETS).pop((NAMESPACE, name), None)
                message = "TrainJob exceeded its active deadline"
            else:
                _jobs_status(job)
                self._touch(job)
                message = f"jobset failed due to reaching max number of restarts (first failed job: {name}-node-0)"
        self._gone_before_failed(name)
        with self.changed:
            if name in self.jobs:
                if job_reason != "DeadlineExceeded":
                    _jobs_status(job, failed=1)
                _condition(job, "Failed", "True", job_reason, message)
                self._touch(job)

    def _gone_before_failed(self, name: str) -> None:
        time.sleep(0.02)  # a watch may see them ending, or not
        with self.changed:
            for pod in self._pods_of(name):
                if "deletionTimestamp" in pod["metadata"]:
                    self._remove(PODS, pod)

    def lose_pod(self, name: str, index: int) -> None:
        """Have a pod gone, as with its machine."""
        with self.changed:
            self._remove(PODS, self.pods[_pod_name(name, index)])

    def remove(self, name: str) -> None:
        """Have a job and what it owns gone."""
        with self.changed:
            if name in self.jobs:
                self._remove(TRAINJOBS, self.jobs[name])
            for kind in (JOBSETS, WORKLOADS, PODS):
                for thing in list(self._of(kind).values()):
                    owner = thing["metadata"].get("ownerReferences", [{}])[0].get("name", "")
                    if name in (owner, owner.removesuffix("-node-0")) or thing["metadata"]["name"] == name:
                        self._remove(kind, thing)

    def workload(self, name: str) -> dict[str, Any]:
        """Return the Workload of a job: it is found by its owner, its name ends in a hash."""
        return next(
            each for each in self._of(WORKLOADS).values() if each["metadata"]["ownerReferences"][0]["name"] == name
        )

    def replay(self, recording: str, name: str, *, pace: float = 0.0, since: str = "", until: str = "~") -> None:
        """Put in what a recording saw of a job, in its order, as of the job `name`.

        `pace`: seconds for each second of the recording, and for at most five in which nothing came; `since` and
        `until`: times in it, where to begin and where to stop.
        """
        entries = json.loads((RECORDINGS / f"{recording}.json").read_text())
        recorded = next(e["name"] for e in entries if e["kind"] == "trainjobs")
        at: datetime | None = None
        for entry in entries:
            if entry["at"] < since:
                continue
            if entry["at"] >= until:
                return
            moment = datetime.strptime(entry["at"], "%H:%M:%S.%f")
            time.sleep(pace * min((moment - at).total_seconds(), 5.0) if at else 0.0)
            at = moment
            self._replay(json.loads(json.dumps(entry).replace(recorded, name)), name)

    def _replay(self, entry: dict[str, Any], name: str) -> None:
        kind = {"trainjobs": TRAINJOBS, "jobsets": JOBSETS, "workloads": WORKLOADS, "pods": PODS}[entry["kind"]]
        with self.changed:
            key = (NAMESPACE, entry["name"])
            there = self._of(kind).get(key)
            if entry.get("gone"):
                if there and kind != TRAINJOBS:  # its launcher's own deed
                    self._remove(kind, there)
                return
            if kind == WORKLOADS:
                there = self.workload(name)
            elif kind == PODS and there is None:
                index = int(entry["name"].removeprefix(f"{name}-node-0-").split("-")[0])
                there = self.put(_pod(name, index, entry["name"]))
            elif kind == JOBSETS and there is None:
                there = self.put(
                    {
                        "apiVersion": JOBSETS[0],
                        "kind": "JobSet",
                        "metadata": dict(entry["metadata"]) | {"namespace": NAMESPACE},
                    }
                )
            if there is None:  # a job that its launcher has deleted in the meantime
                return
            for container in entry["status"].get("containerStatuses", []):  # cut in the recording
                container |= {"image": "", "imageID": ""}
            there["status"] = entry["status"]
            if "deletionTimestamp" in entry["metadata"] and kind == PODS:
                there["metadata"]["deletionTimestamp"] = entry["metadata"]["deletionTimestamp"]
            if "suspend" in entry.get("spec", {}):
                there.setdefault("spec", {})["suspend"] = entry["spec"]["suspend"]
            self._touch(there)

    def _suspended(self, job: dict[str, Any]) -> None:
        job["spec"]["suspend"] = True
        _condition(job, "Suspended", "True", "Suspended", "TrainJob is suspended")
        _jobs_status(job, suspended=1)
        self._touch(job)

    def _of(self, kind: tuple[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
        return self.objects.setdefault(kind, {})

    def _pods_of(self, name: str) -> list[dict[str, Any]]:
        label = "jobset.sigs.k8s.io/jobset-name"
        return [
            pod for _, pod in sorted(self._of(PODS).items()) if pod["metadata"].get("labels", {}).get(label) == name
        ]

    def _touch(self, thing: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self.changed.notify_all()
        return thing

    def _remove(self, kind: tuple[str, str], thing: dict[str, Any]) -> None:
        metadata = thing["metadata"]
        self._of(kind).pop((metadata.get("namespace", ""), metadata["name"]), None)
        self._version += 1
        self.changed.notify_all()

    # What the API server answers

    def act(self, request: Request, body: Any) -> Any:
        with self.changed:
            if request.path in self.answers:
                return self.answers[request.path]
            kind, namespace, name = self.kind(request)
            if kind not in self.served:
                raise Refused(404, "the server could not find the requested resource")
            if request.method == "POST" and name is None:
                return self._create(kind, namespace, body)
            if request.method == "GET" and name is None:
                return {
                    "apiVersion": kind[0],
                    "kind": f"{kind[1]}-list",
                    "items": self.select(request),
                    "metadata": {"resourceVersion": str(self._version)},
                }
            thing = self._of(kind).get((namespace or "", name or ""))
            if thing is None:
                raise Refused(404, f'{_resource(kind)} "{name}" not found')
            if request.method == "GET":
                return thing
            if request.method == "PATCH":
                _merge(thing, body)
                return self._touch(thing)
            if request.method == "DELETE":
                return self._delete(kind, thing)
        raise Refused(405, request.method)

    def kind(self, request: Request) -> tuple[tuple[str, str], str | None, str | None]:
        """Return apiVersion and plural, namespace and name that a path speaks of."""
        found = _PATH.fullmatch(request.path)
        if not found:
            raise Refused(404, f"no such path: {request.path}")
        return (found[1] or found[2], found[4]), found[3], found[5]

    def select(self, request: Request) -> list[dict[str, Any]]:
        """Return the objects that a list asks for."""
        kind, namespace, _ = self.kind(request)
        there = self._of(kind).items()
        return [o for (n, _), o in there if namespace in (None, n) and _selects(request, o)]

    def _delete(self, kind: tuple[str, str], thing: dict[str, Any]) -> Any:
        name = thing["metadata"]["name"]
        self.deleted.append(name)
        if kind == TRAINJOBS and (
            self.lingers or name in self.runs
        ):  # trainjobs-4: nine seconds of foreground deletion
            thing["metadata"] |= {"deletionTimestamp": _now(), "finalizers": ["foregroundDeletion"]}
            self._touch(thing)
        elif kind == TRAINJOBS:
            self.remove(name)
        else:
            self._remove(kind, thing)
        return {"kind": "Status", "status": "Success"}

    def _create(self, kind: tuple[str, str], namespace: str | None, body: Any) -> Any:
        name = body["metadata"]["name"]
        errors = []
        if kind == TRAINJOBS:
            errors = [f"{error.json_path}: {error.message}" for error in self._validator.iter_errors(body)]
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
            errors.append(f"metadata.name {name!r}")
        if errors:
            raise Refused(422, f'{body["kind"]} "{name}" is invalid: {"; ".join(errors)}')
        if (namespace or "", name) in self._of(kind):
            raise Refused(409, f'{_resource(kind)} "{name}" already exists')
        if namespace:
            body["metadata"]["namespace"] = namespace
        if kind == TRAINJOBS:
            self.created.append(copy.deepcopy(body))
            body["spec"] |= {"suspend": True, "managedBy": "trainer.kubeflow.org/trainjob-controller"}
            for patch in body["spec"]["runtimePatches"]:
                patch["time"] = _now()
            body["spec"]["runtimePatches"].append(
                {"manager": "kueue.x-k8s.io/manager", "trainingRuntimeSpec": {"template": {"spec": {}}}}
            )
            self.put(body)
            self.put(_workload(body))
        return self.put(body)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _plural(kind: str) -> str:
    lower = kind.lower()
    if lower.endswith(("s", "x")):
        return f"{lower}es"
    return f"{lower[:-1]}ies" if lower.endswith("cy") else f"{lower}s"


def _resource(kind: tuple[str, str]) -> str:
    group = kind[0].rpartition("/")[0]
    return f"{kind[1]}.{group}" if group else kind[1]


def _merge(thing: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            thing.pop(key, None)
        elif isinstance(value, dict):
            _merge(thing.setdefault(key, {}), value)
        else:
            thing[key] = value


def _condition(thing: dict[str, Any], kind: str, status: str, reason: str, message: str) -> None:
    """Set a condition in its place in the list; a new one comes last."""
    conditions = thing.setdefault("status", {}).setdefault("conditions", [])
    new = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": _now()}
    for index, old in enumerate(conditions):
        if old["type"] == kind:
            conditions[index] = new
            return
    conditions.append(new)


def _jobs_status(job: dict[str, Any], **counts: int) -> None:
    none = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0)
    job.setdefault("status", {})["jobsStatus"] = [none | counts | {"name": _NODE}]


def _patch_of_kueue(job: dict[str, Any], workload: dict[str, Any]) -> None:
    """Have Kueue's own entry say where the pods go (trainjobs-1-trainjob-running); ours stays."""
    recorded = yaml.load((RECORDINGS / "trainjobs-1-trainjob-running.yaml").read_text(), Loader=yaml.CSafeLoader)
    entry = recorded["spec"]["runtimePatches"][1]
    (node,) = entry["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    node["template"]["spec"]["template"]["metadata"]["annotations"]["kueue.x-k8s.io/workload"] = workload["metadata"][
        "name"
    ]
    job["spec"]["runtimePatches"] = [p for p in job["spec"]["runtimePatches"] if p["manager"] != entry["manager"]] + [
        entry
    ]


def _workload(job: dict[str, Any]) -> dict[str, Any]:
    """The Workload of a job that is new (trainjobs-5-workload-pending; it has no condition at first: trainjobs-4)."""
    workload: dict[str, Any] = json.loads((RECORDINGS / "trainjobs-5-workload-pending.json").read_text())
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    workload["metadata"] |= {
        "name": f"trainjob-{name}-{uuid.uuid4().hex[:5]}",
        "labels": {"kueue.x-k8s.io/job-uid": uid},
        "uid": str(uuid.uuid4()),
        "ownerReferences": [workload["metadata"]["ownerReferences"][0] | {"name": name, "uid": uid}],
    }
    workload["status"] = {"conditions": []}
    return workload


def _pod_name(job: str, index: int) -> str:
    return f"{job}-node-0-{index}-x"


def _pod(job: str, index: int, name: str | None = None) -> dict[str, Any]:
    """A pod that runs (trainjobs-1-pod-running)."""
    text = (RECORDINGS / "trainjobs-1-pod-running.yaml").read_text()
    pods = yaml.load(text.replace("pretrain-7f0f973819f319f8-0", job), Loader=yaml.CSafeLoader)
    pod: dict[str, Any] = pods["items"][0]
    metadata = pod["metadata"]
    metadata |= {"name": name or _pod_name(job, index), "uid": str(uuid.uuid4())}
    for where in (metadata["labels"], metadata["annotations"]):
        where["batch.kubernetes.io/job-completion-index"] = str(index)
    return pod


def _terminate(pod: dict[str, Any], code: int, reason: str) -> None:
    ended = {"exitCode": code, "reason": reason if code else "Completed", "startedAt": _now(), "finishedAt": _now()}
    pod["status"]["phase"] = "Failed" if code else "Succeeded"
    _condition(pod, "Ready", "False", "PodFailed" if code else "PodCompleted", "")
    (container,) = pod["status"]["containerStatuses"]
    container |= {"ready": False, "started": False, "state": {"terminated": ended}}


def _validator() -> Any:
    resources = [(path.name, Resource.from_contents(json.loads(path.read_bytes()))) for path in SCHEMAS.glob("*.json")]
    schema = json.loads((SCHEMAS / "TrainJob.json").read_bytes())
    return jsonschema.Draft202012Validator(schema, registry=Registry().with_resources(resources))


def _selects(request: Request, item: dict[str, Any]) -> bool:
    labels = item["metadata"].get("labels", {})
    for part in re.findall(r"[^,(]+(?:\([^)]*\))?", request.query.get("labelSelector", "")):
        if among := re.fullmatch(r"(\S+) in \((.*)\)", part):
            if labels.get(among[1]) not in among[2].split(","):
                return False
            continue
        key, equals, value = part.replace("==", "=").partition("=")
        if (labels.get(key) != value) if equals else (key not in labels):
            return False
    for part in filter(None, request.query.get("fieldSelector", "").split(",")):
        path, _, value = part.partition("=")
        found: Any = item
        for word in path.split("."):
            found = (found or {}).get(word)
        if found != value:
            return False
    return True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)))
        with self.backend.changed:
            self.backend.requests.append(request)
            self.backend.changed.notify_all()
            fault = self.backend.fault(request)
        self.close_connection = self.close_connection or fault in ("drop", "act-then-drop")
        if fault == "drop":
            return
        try:
            if isinstance(fault, int):
                raise Refused(fault, "as the test says")
            if request.verb == "log":
                self._log(request)
                return
            if request.watches:
                self._watch(request)
                return
            with self.backend.changed:
                answer = json.dumps(self.backend.act(request, json.loads(body) if body else None)).encode()
            status = 200
        except Refused as refusal:
            status, answer = refusal.status, json.dumps(_status(refusal.status, str(refusal))).encode()
        if fault != "act-then-drop":
            self._send(status, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815

    def _send(self, status: int, data: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes = b"") -> None:
        """Send one chunk of a stream; an empty one ends it."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _watch(self, request: Request) -> None:
        """Send the changes since resourceVersion as lines, until timeoutSeconds."""
        self.close_connection = True
        backend, seen = self.backend, int(request.query.get("resourceVersion", 0))
        end = time.monotonic() + float(request.query["timeoutSeconds"])
        named = "metadata.name=" in request.query.get("fieldSelector", "")
        self._stream()
        while (left := end - time.monotonic()) > 0 and not backend.closed:
            with backend.changed:
                there = backend.select(request)
                new = [o for o in there if int(o["metadata"]["resourceVersion"]) > seen]
                gone = named and not there
                if not new and not gone:
                    backend.changed.wait(left)
                lines = [{"type": "MODIFIED", "object": each} for each in new]
                lines += [{"type": "DELETED", "object": {"metadata": {}}}] if gone else []
                data = [json.dumps(line).encode() + b"\n" for line in lines]
            for each, line in zip(new, data, strict=False):
                seen = max(seen, int(each["metadata"]["resourceVersion"]))
                self._chunk(line)
            if gone:
                self._chunk(data[-1])
                break
        self._chunk()

    def _log(self, request: Request) -> None:
        """Send a pod's log; `follow` until it has ended. A line CUT, HANG or LOST is what goes wrong in its place."""
        name = request.path.split("/")[-2]
        backend, sent = self.backend, 0
        since = time.time() - float(request.query.get("sinceSeconds", 1e9))
        stamps = request.query.get("timestamps", "").lower() == "true"
        with backend.changed:
            pod = backend.pods.get(name)
        if pod is None:
            self._send(404, json.dumps(_status(404, f'pods "{name}" not found')).encode())
            return
        self.close_connection = True
        self._stream()
        while True:
            with backend.changed:
                log = backend.logs.setdefault(name, [])
                lines = log[sent:]
                sent = len(log)
                ended = pod["status"]["phase"] in ("Succeeded", "Failed") or name not in backend.pods
                if not lines and not ended and request.query.get("follow", "").lower() == "true":
                    backend.changed.wait(1.0)
                    continue
            for moment, line in lines:
                if moment >= since:
                    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
                    text = f"{stamp}.{int(moment % 1 * 1e9):09d}Z {line}\n" if stamps else f"{line}\n"
                    if line == "CUT":  # half a line, and the connection is gone
                        log.remove((moment, line))
                        self._chunk(text.encode()[:-2])
                        return
                    if line == "HANG":  # nothing more comes, and the connection stays
                        log.remove((moment, line))
                        with backend.changed:
                            backend.changed.wait_for(lambda: backend.closed, 60)
                        return
                    if line == "LOST":  # the kubelet's own words, without a time, where the container is gone
                        text = "unable to retrieve container logs for containerd://8b48f924869c388c7e5f"
                    self._chunk(text.encode())
            if ended or request.query.get("follow", "").lower() != "true":
                self._chunk()
                return


def _status(code: int, message: str) -> dict[str, Any]:
    reason = {403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired", 422: "Invalid"}.get(
        code, "Failure"
    )
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@contextmanager
def serve(backend: Backend) -> Iterator[str]:
    """Serve the API on a port of this machine; give its address."""
    handler = type("Handler", (_Handler,), {"backend": backend})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]  (a client that went away)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        with backend.changed:
            backend.closed = True
            backend.changed.notify_all()
        server.shutdown()
        server.server_close()


def write_kubeconfig(path: Path, url: str) -> Path:
    """Write the file that KUBECONFIG names."""
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [context],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
    }
    path.write_text(json.dumps(document))
    return path


class Kubelet:
    """Runs the pods of a job as processes of this machine, as Trainer's torch plugin tells torchrun about them, and
    ends the job as the runtime `graftline-torch` does: when the first pod fails, or the job is deleted, all others get
    SIGTERM."""

    def __init__(self, backend: Backend, environment: dict[str, str], folder: Path) -> None:
        self._backend, self._environment, self._folder = backend, environment, folder
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def run(self, name: str, on_line: Callable[[str], None] = lambda line: None) -> list[int]:
        """Run the job's pods to their end; return their exit codes."""
        spec = self._backend.jobs[name]["spec"]["trainer"]
        self._backend.start(name)
        self._backend.runs.add(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        readers = []
        for index in range(spec["numNodes"]):
            settings = {entry["name"]: entry["value"] for entry in spec["env"]} | {
                "PET_NNODES": str(spec["numNodes"]),
                "PET_NODE_RANK": str(index),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_NPROC_PER_NODE": str(spec["numProcPerNode"]),
                "PET_MASTER_PORT": str(port),
            }
            disk = self._folder / f"{name}-{index}"
            disk.mkdir(parents=True)
            command = [sys.executable, *spec["command"][1:], *spec["args"]]
            process = forked.Popen(
                command,
                env=os.environ | self._environment | settings | {"TMPDIR": str(disk)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes[index] = process
            readers.append(threading.Thread(target=self._read, args=(name, index, on_line), daemon=True))
            readers[-1].start()
        try:
            while (
                all(p.poll() in (None, 0) for p in self.processes.values())
                and any(p.poll() is None for p in self.processes.values())
                and "deletionTimestamp" not in self._backend.jobs[name]["metadata"]
            ):
                time.sleep(0.02)
        except BaseException:  # a test that ends before the pods do
            for process in self.processes.values():
                process.terminate()
            raise
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        codes = [process.wait(60) for process in self.processes.values()]
        for reader in readers:
            reader.join(60)
        codes = [128 - code if code < 0 else code for code in codes]
        self._backend.runs.discard(name)
        if "deletionTimestamp" in self._backend.jobs[name]["metadata"]:
            self._backend.remove(name)
        else:
            self._backend.end(name, codes)
        return codes

    def _read(self, name: str, index: int, on_line: Callable[[str], None]) -> None:
        stream = self.processes[index].stdout
        assert stream
        for line in stream:
            self._backend.say(name, line.rstrip("\n"), index)
            if index == 0:
                on_line(line)
