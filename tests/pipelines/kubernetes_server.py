"""A stand-in for the Kubernetes API server with Kubeflow Trainer, for tests. It is no cluster.

It follows the paths and answers of the API that the launcher uses: TrainJobs (create, get, list, delete, watch), pods
(list) and their logs. A TrainJob is checked against infra/schemas/TrainJob.json, where a field that Trainer does not
have is an error. Nothing runs by itself: a test plays Kueue, Trainer and the kubelet through the methods of `Backend`,
or has `Kubelet` run a job's pods as processes of this machine.

`fault` may name what goes wrong with a request: an HTTP status; `drop` closes the connection and does nothing,
`act-then-drop` does it and closes.
"""

from __future__ import annotations

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
from referencing import Registry, Resource

from graftline.environment import ROOT

SCHEMAS = ROOT / "infra/schemas"
JOBS = re.compile(r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/graftline/trainjobs(?:/([^/]+))?")
PODS = re.compile(r"/api/v1/namespaces/graftline/pods")
LOG = re.compile(r"/api/v1/namespaces/graftline/pods/([^/]+)/log")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]

    @property
    def watches(self) -> bool:
        return self.query.get("watch") == "True" or self.query.get("watch") == "true"

    @property
    def verb(self) -> str:
        if LOG.fullmatch(self.path):
            return "log"
        return "watch" if self.watches else self.method


@dataclass
class Pod:
    name: str
    job: str
    index: int
    phase: str = "Running"
    exit_code: int | None = None
    reason: str = ""
    disrupted: bool = False
    evicted: str = ""
    """The kubelet's message, if it has evicted the pod."""
    lines: list[tuple[float, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"running": {}}
        if self.exit_code is not None:
            state = {"terminated": {"exitCode": self.exit_code, "reason": self.reason or "Error"}}
        conditions = [{"type": "DisruptionTarget", "status": "True"}] if self.disrupted else []
        labels = {
            "jobset.sigs.k8s.io/jobset-name": self.job,
            "batch.kubernetes.io/job-completion-index": str(self.index),
        }
        status = {
            "name": "node",
            "ready": True,
            "restartCount": 0,
            "image": "",
            "imageID": "",
            "state": state,
        }
        eviction = {"reason": "Evicted", "message": self.evicted} if self.evicted else {}
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "labels": labels},
            "status": {"phase": self.phase, "conditions": conditions, "containerStatuses": [status], **eviction},
        }  # fmt: skip


class Refused(Exception):  # noqa: N818  (an answer of the server, no failure of it)
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Backend:
    """The state of the cluster, and what moves it."""

    def __init__(self, fault: Callable[[Request], object] = lambda request: None) -> None:
        self.fault = fault
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, Pod] = {}
        self.requests: list[Request] = []
        self.created: list[dict[str, Any]] = []
        """Every TrainJob that was ever made, in order."""
        self.deleted: list[str] = []
        self.lingers = False
        """Whether a job that is deleted stays, with a deletionTimestamp, until `remove`."""
        self.closed = False
        self.changed = threading.Condition()
        self._version = 1
        self._validator = _validator()

    # What Kueue, Trainer, JobSet and the kubelet do

    def wait_for(self, condition: Callable[[], object], seconds: float = 60) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "what the test waits for did not happen"

    def suspend(self, name: str) -> None:
        with self.changed:
            self._touch(self.jobs[name])["spec"]["suspend"] = True

    def start(self, name: str) -> None:
        """Admit a job and run its pods."""
        with self.changed:
            job = self._touch(self.jobs[name])
            job["spec"]["suspend"] = False
            for index in range(job["spec"]["trainer"]["numNodes"]):
                pod = Pod(f"{name}-node-0-{index}-x", name, index)
                self.pods[pod.name] = pod

    def say(self, name: str, line: str, index: int = 0) -> None:
        """Add a line to a pod's log."""
        with self.changed:
            self.pods[f"{name}-node-0-{index}-x"].lines.append((time.time(), line))
            self.changed.notify_all()

    def end(self, name: str, codes: list[int], *, job_reason: str = "JobsFailed", **pod: Any) -> None:
        """End a job's pods with these exit codes, and the job with them; `pod` changes the first that failed."""
        with self.changed:
            pods = sorted((p for p in self.pods.values() if p.job == name), key=lambda p: p.index)
            for one, code in zip(pods, codes, strict=True):
                one.exit_code, one.phase = code, "Failed" if code else "Succeeded"
            for key, value in pod.items():
                setattr(next(p for p in pods if p.exit_code), key, value)
            kind = "Failed" if any(codes) else "Complete"
            condition = {"type": kind, "status": "True", "reason": job_reason, "message": "as the test says"}
            self._touch(self.jobs[name])["status"] = {"conditions": [condition]}

    def lose_pod(self, name: str, index: int) -> None:
        with self.changed:
            del self.pods[f"{name}-node-0-{index}-x"]

    def remove(self, name: str) -> None:
        with self.changed:
            self.jobs.pop(name, None)
            for pod in [pod for pod in self.pods.values() if pod.job == name]:
                del self.pods[pod.name]
            self._version += 1
            self.changed.notify_all()

    def _touch(self, job: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)
        self.changed.notify_all()
        return job

    # What the API server answers

    def act(self, request: Request, body: Any) -> Any:
        with self.changed:
            if found := JOBS.fullmatch(request.path):
                return self._jobs(request, found[1], body)
            if PODS.fullmatch(request.path) and request.method == "GET":
                chosen = [p.as_dict() for p in self.pods.values() if _selects(request, p.as_dict())]
                return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": chosen}
        raise Refused(404, f"no such path: {request.path}")

    def _jobs(self, request: Request, name: str | None, body: Any) -> Any:
        if request.method == "POST" and name is None:
            return self._create(body)
        if request.method == "GET" and name is None:
            items = [job for job in self.jobs.values() if _selects(request, job)]
            return {
                "kind": "TrainJobList",
                "metadata": {"resourceVersion": str(self._version)},
                "items": items,
            }
        if name is None or name not in self.jobs:
            raise Refused(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        if request.method == "GET":
            return self.jobs[name]
        if request.method == "DELETE":
            self.deleted.append(name)
            if self.lingers:
                self._touch(self.jobs[name])["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            else:
                self.remove(name)
            return {"kind": "Status", "status": "Success"}
        raise Refused(405, request.method)

    def _create(self, body: Any) -> Any:
        errors = [f"{error.json_path}: {error.message}" for error in self._validator.iter_errors(body)]
        name = body["metadata"]["name"]
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
            errors.append(f"metadata.name {name!r}")
        if errors:
            raise Refused(422, f'TrainJob "{name}" is invalid: {"; ".join(errors)}')
        if name in self.jobs:
            raise Refused(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        body["metadata"]["uid"] = str(uuid.uuid4())
        self.jobs[name] = body
        self.created.append(body)
        return self._touch(body)


def _validator() -> Any:
    resources = [
        (path.name, Resource.from_contents(json.loads(path.read_bytes()))) for path in SCHEMAS.glob("*.json")
    ]
    schema = json.loads((SCHEMAS / "TrainJob.json").read_bytes())
    return jsonschema.Draft202012Validator(schema, registry=Registry().with_resources(resources))


def _selects(request: Request, item: dict[str, Any]) -> bool:
    wanted = dict(part.split("=", 1) for part in request.query.get("labelSelector", "").split(",") if part)
    labels = item["metadata"].get("labels", {})
    name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    return all(labels.get(key) == value for key, value in wanted.items()) and name in (
        "",
        item["metadata"]["name"],
    )


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)))
        with self.backend.changed:
            self.backend.requests.append(request)
            self.backend.changed.notify_all()
            fault = self.backend.fault(request)
        if fault == "drop":
            return
        try:
            if isinstance(fault, int):
                raise Refused(fault, "as the test says")
            if LOG.fullmatch(parts.path):
                self._log(request)
                return
            if request.watches:
                self._watch(request)
                return
            answer, status = self.backend.act(request, json.loads(body) if body else None), 200
        except Refused as refusal:
            status, answer = refusal.status, _status(refusal.status, str(refusal))
        if fault != "act-then-drop":
            self._send(status, json.dumps(answer).encode())

    do_GET = do_POST = do_DELETE = _any  # noqa: N815

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
        backend, seen = self.backend, int(request.query.get("resourceVersion", 0))
        end = time.monotonic() + float(request.query["timeoutSeconds"])
        self._stream()
        while (left := end - time.monotonic()) > 0:
            with backend.changed:
                new = [
                    j for j in backend.jobs.values()
                    if int(j["metadata"]["resourceVersion"]) > seen and _selects(request, j)
                ]  # fmt: skip
                name = request.query["fieldSelector"].removeprefix("metadata.name=")
                gone = name not in backend.jobs
                if not new and not gone:
                    backend.changed.wait(left)
            if gone:
                self._chunk(json.dumps({"type": "DELETED", "object": {"metadata": {}}}).encode() + b"\n")
                break
            for job in new:
                seen = max(seen, int(job["metadata"]["resourceVersion"]))
                self._chunk(json.dumps({"type": "MODIFIED", "object": job}).encode() + b"\n")
        self._chunk()

    def _log(self, request: Request) -> None:
        """Send a pod's log; `follow` until it has ended, or until the connection is broken after `break_after`."""
        found = LOG.fullmatch(request.path)
        assert (
            found and request.query["container"] == "node" and request.query["timestamps"].lower() == "true"
        )
        backend, sent = self.backend, 0
        since = time.time() - float(request.query.get("sinceSeconds", 1e9))
        with backend.changed:
            if found[1] not in backend.pods:
                self._send(404, json.dumps(_status(404, "no such pod")).encode())
                return
            pod = backend.pods[found[1]]
        self._stream()
        while True:
            with backend.changed:
                lines = pod.lines[sent:]
                sent = len(pod.lines)
                ended = pod.exit_code is not None or pod.name not in backend.pods
                if not lines and not ended and request.query.get("follow", "").lower() == "true":
                    backend.changed.wait(1.0)
                    continue
            for moment, line in lines:
                if moment >= since:
                    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
                    text = f"{stamp}.{int(moment % 1 * 1e9):09d}Z {line}\n"
                    if line == "CUT":  # half a line, and the connection is gone
                        pod.lines.remove((moment, line))
                        self._chunk(text.encode()[:-2])
                        return
                    if line == "HANG":  # nothing more comes, and the connection stays
                        pod.lines.remove((moment, line))
                        with backend.changed:
                            backend.changed.wait_for(lambda: backend.closed, 60)
                        return
                    self._chunk(text.encode())
            if ended or request.query.get("follow", "").lower() != "true":
                self._chunk()
                return


def _status(code: int, message: str) -> dict[str, Any]:
    reason = {404: "NotFound", 409: "AlreadyExists", 410: "Expired", 422: "Invalid"}.get(code, "Failure")
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
        "apiVersion": "v1", "kind": "Config", "current-context": "test", "contexts": [context],
        "clusters": [{"name": "test", "cluster": {"server": url}}], "users": [{"name": "test", "user": {}}],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


class Kubelet:
    """Runs the pods of a job as processes of this machine, as Trainer's torch plugin tells torchrun about them, and
    ends the job as the runtime `graftline-torch` does: when the first pod fails, the others get SIGTERM."""

    def __init__(self, backend: Backend, environment: dict[str, str], folder: Path) -> None:
        self._backend, self._environment, self._folder = backend, environment, folder
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def run(self, name: str, on_line: Callable[[str], None] = lambda line: None) -> list[int]:
        """Run the job's pods to their end; return their exit codes."""
        spec = self._backend.jobs[name]["spec"]["trainer"]
        self._backend.start(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        readers = []
        for index in range(spec["numNodes"]):
            settings = {entry["name"]: entry["value"] for entry in spec["env"]} | {
                "PET_NNODES": str(spec["numNodes"]), "PET_NODE_RANK": str(index), "PET_MASTER_ADDR": "127.0.0.1",
                "PET_NPROC_PER_NODE": str(spec["numProcPerNode"]), "PET_MASTER_PORT": str(port),
            }  # fmt: skip
            disk = self._folder / f"{name}-{index}"
            disk.mkdir(parents=True)
            command = [sys.executable, *spec["command"][1:], *spec["args"]]
            process = subprocess.Popen(
                command, env=os.environ | self._environment | settings | {"TMPDIR": str(disk)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            self.processes[index] = process
            readers.append(threading.Thread(target=self._read, args=(name, index, on_line), daemon=True))
            readers[-1].start()
        try:
            while all(p.poll() in (None, 0) for p in self.processes.values()) and any(
                p.poll() is None for p in self.processes.values()
            ):
                time.sleep(0.05)
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
        self._backend.end(name, codes)
        return codes

    def _read(self, name: str, index: int, on_line: Callable[[str], None]) -> None:
        stream = self.processes[index].stdout
        assert stream
        for line in stream:
            self._backend.say(name, line.rstrip("\n"), index)
            if index == 0:
                on_line(line)
