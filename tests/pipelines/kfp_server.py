"""A stand-in for the API server of Kubeflow Pipelines 2.17 (v2beta1), for tests. It is no cluster: no pod ever runs.

Its answers are those that a real one gave: tests/pipelines/recordings/ holds them, and test_kfp_server.py holds the
stand-in to them. What they show of a run is not what one would expect: there is no state CANCELED and no word for the
cache, a step that never ran has no state, `error` is never set, and every step has a task named `executor`. A request
is read with the published client's own models (kfp_server_api): an unknown field or a wrong enumeration is refused as
the gRPC gateway refuses it. State lives in memory. With a `namespace` it is a multi-user installation: a call needs a
namespace or the id of something in one.

    backend = KfpBackend()
    with serve(backend) as url: ...                  over a socket: kfp.Client(host=url), kfp_server_api
    api_client.rest_client = InProcess(backend)      the same requests without a socket

`backend.fault` may name what goes wrong with a request; see `Fault`. Tests move runs on with `backend.set_state`,
`set_steps` and `end_later`, take a run's workflow away with `lose`, and put recorded runs into `backend.runs`.
"""

from __future__ import annotations

import http.server
import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
import urllib3
import yaml
from kfp_server_api import models

from graftline.kubeflow_api import share_configuration

share_configuration()
PREFIX = "/apis/v2beta1"
RECORDINGS = Path(__file__).parent / "recordings"
ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED")
STATES = (*ACTIVE, "SUCCEEDED", "FAILED")
"""Of a run. CANCELED and SKIPPED are words of the API that no run ever had."""
TERMINATION = timedelta(seconds=35)
"""From `:terminate` to the run's end: 31 to 42 s (runs-4-cancelled-run.json and others)."""
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}
_FILTERS = ("display_name", "name", "state", "recurring_run_id", "scheduled_at", "created_at", "storage_state")
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_client = kfp_server_api.ApiClient()


def recorded_run(name: str) -> Any:
    """Return the run of a recording, such as `runs-4-cancelled`."""
    return _model((RECORDINGS / f"{name}-run.json").read_bytes(), models.V2beta1Run)


def recorded_error(name: str) -> str:
    """Return what the server said when it refused, such as `run missing`."""
    return str(json.loads((RECORDINGS / "schedules-errors.json").read_bytes())[name]["message"])


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    kind: `refuse` answers `status` and does nothing; `act-then-fail` does it and answers `status`; `drop` closes the
    connection and does nothing; `act-then-drop` does it and closes; `late` closes now and does it when
    `backend.land()` is called.
    """

    kind: str
    status: int = 500
    message: str = "a fault of the test"


@dataclass(frozen=True)
class Request:
    """One call of the API."""

    method: str
    path: str
    """Without `/apis/v2beta1`."""
    query: dict[str, str]
    body: Any
    """Decoded JSON, or the bytes of the uploaded file."""
    token: str = ""
    """The Authorization header."""

    @property
    def changes(self) -> bool:
        return self.method != "GET"


class Refused(Exception):  # noqa: N818  (an answer of the server, no failure of it)
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Dropped(Exception):  # noqa: N818
    """The connection is closed without an answer."""


@dataclass
class KfpBackend:
    """The state of the server, and what its methods do to it."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    namespace: str = ""
    """Of the one user of a multi-user installation: a call that names none is refused. Empty: a standalone one."""
    token: str = ""
    """What a call must bring as a bearer token; empty: nothing is asked."""
    version: str = "2.17.0"
    fault: Callable[[Request], Fault | None] = lambda request: None
    experiments: dict[str, Any] = field(default_factory=dict)
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    ghosts: set[str] = field(default_factory=set)
    """Runs whose workflow is gone: whatever one asks, they never end (schedules-ghost-run.json)."""
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    """What a pod printed, by run and node."""
    log: list[Request] = field(default_factory=list)
    """Every request that changes something and was carried out, oldest first."""
    late: list[Request] = field(default_factory=list)
    _ends: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def handle(self, request: Request) -> tuple[int, Any]:
        """Return status and answer: an object for JSON, text for a log. Raises Dropped."""
        fault = self.fault(request)
        if fault is None:
            return self._answer(request)
        if fault.kind in ("act-then-fail", "act-then-drop"):
            self._answer(request)
        elif fault.kind == "late":
            self.late.append(request)
        if fault.kind in ("refuse", "act-then-fail"):
            return fault.status, _error(fault.status, fault.message)
        raise Dropped

    def land(self) -> None:
        """Carry out the requests that a `late` fault held back."""
        while self.late:
            self._answer(self.late.pop(0))

    def set_state(self, run_id: str, state: str) -> None:
        """Let a run reach `state`, such as RUNNING or SUCCEEDED; a ghost reaches none."""
        run = self.runs[run_id]
        assert state in STATES, f"no run was ever {state}"
        if run_id in self.ghosts and state not in ACTIVE:
            return
        run.state = state
        run.state_history = [
            *(run.state_history or []),
            models.V2beta1RuntimeStatus(update_time=self._now(), state=state),
        ]
        run.finished_at = _NEVER if state in ACTIVE else self._now()
        if state not in ACTIVE:
            self._ends.pop(run_id, None)

    def set_steps(self, run_id: str, steps: Mapping[str, str | None]) -> dict[str, str]:
        """Say how far each step is; return the pods of those that have one.

        Args:
            run_id: of the run.
            steps: PENDING (its pod does not start), RUNNING, SUCCEEDED, FAILED, CACHED, or None for a step that
                never ran, as the API shows them once the run has ended.
        """
        run = self.runs[run_id]
        tasks, pods = _tasks(run, steps)
        run.run_details = models.V2beta1RunDetails(task_details=tasks)
        return pods

    def end_later(self, run_id: str, state: str, after: timedelta) -> None:
        """Let a run end in `state` once the clock says so."""
        self._ends[run_id] = (self._now() + after, state)

    def lose(self, run_id: str) -> None:
        """Take a run's workflow away: it is a ghost from now on."""
        self.ghosts.add(run_id)

    def tick(self) -> None:
        """Let the runs end whose time has come."""
        for run_id, (at, state) in list(self._ends.items()):
            if at <= self._now():
                del self._ends[run_id]
                self.set_state(run_id, state)

    def _now(self) -> datetime:
        return self.clock().replace(microsecond=0)  # the API knows seconds

    def add_run(self, run: Any) -> Any:
        """Take a run in, as if it had just been asked for."""
        run.run_id, run.created_at, run.storage_state = self._new_id(), self._now(), "AVAILABLE"
        run.scheduled_at = run.created_at
        _one(self.experiments, run.experiment_id, "experiment")
        run.runtime_config = run.runtime_config or models.V2beta1RuntimeConfig(parameters={})
        self._check_parameters(run)
        self.runs[run.run_id] = run
        self.set_state(run.run_id, "PENDING")
        return run

    def _check_parameters(self, run: Any) -> None:
        """Refuse a parameter that the pipeline does not have, and the absence of one that it needs."""
        reference = run.pipeline_version_reference
        if reference is None or not reference.pipeline_version_id:  # Kubeflow would take the newest created
            raise Refused(400, "every run here names its version")
        spec = _one(self.versions, reference.pipeline_version_id, "pipeline version").pipeline_spec
        spec = spec.get("pipeline_spec", spec)
        inputs = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
        given = run.runtime_config.parameters
        if unknown := sorted(set(given) - set(inputs)):
            raise Refused(400, f"parameter not found in the pipeline: {unknown[0]}")
        for name, definition in inputs.items():
            optional = definition.get("isOptional") or "defaultValue" in definition
            if name not in given and not optional:
                raise Refused(400, f"parameter {name} is not optional, yet has neither default value nor user value")

    def _answer(self, request: Request) -> tuple[int, Any]:
        for method, pattern, act in _ROUTES:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                try:
                    self.tick()
                    self._check_token(request)
                    self._check_place(request)
                    answer = act(self, request, *map(unquote, found.groups()))
                except Refused as refused:
                    return refused.status, _error(refused.status, str(refused))
                if request.changes:
                    self.log.append(request)
                return 200, answer if isinstance(answer, str) else _client.sanitize_for_serialization(answer)
        return 404, _error(404, f"no such method: {request.method} {request.path}")

    def _check_token(self, request: Request) -> None:
        """Health and logs ask for nobody's name: whoever reaches the port reads any run's log."""
        asked = self.token and not request.path.endswith(("/log", "/healthz"))
        if asked and request.token != f"Bearer {self.token}":
            missing = "Request header error: there is no user identity header."
            raise Refused(401, f"Failed to authorize the request: UnauthenticatedError: {missing}: {missing}")

    def _check_place(self, request: Request) -> None:
        """Refuse what a multi-user installation refuses: a call that says nothing of a namespace, or another one."""
        if not self.namespace or not re.fullmatch("/(experiments|pipelines(/names/[^/]+)?|runs)", request.path):
            return  # the rest names something that lies in a namespace
        body = request.body if isinstance(request.body, dict) else {}
        experiment = request.query.get("experiment_id") or body.get("experiment_id")
        given = request.query.get("namespace") or body.get("namespace")
        if not given and experiment in self.experiments:
            given = self.experiments[experiment].namespace
        if not given:
            raise Refused(400, "a resource cannot have an empty namespace in multi-user mode")
        if given != self.namespace:
            told = recorded_error("other namespace")
            raise Refused(403, told.replace("namespace kubeflow", f"namespace {given}"))

    def _new_id(self) -> str:
        return str(uuid.UUID(int=next(self._count)))

    def _add_version(self, pipeline_id: str, query: dict[str, str], name: str, content: bytes) -> Any:
        _one(self.pipelines, pipeline_id, "pipeline")
        if any((v.pipeline_id, v.name) == (pipeline_id, name) for v in self.versions.values()):
            raise Refused(409, f"already exist error: a version named {name}")
        version = models.V2beta1PipelineVersion(
            pipeline_id=pipeline_id,
            pipeline_version_id=self._new_id(),
            name=name,
            display_name=query.get("display_name") or name,
            description=query.get("description"),
            created_at=self._now(),
            pipeline_spec=_read_spec(content),
        )
        self.versions[version.pipeline_version_id] = version
        return version


def _read_spec(content: bytes) -> Any:
    """Return the pipeline spec of an uploaded YAML; a platform spec beside it."""
    try:
        documents = [document for document in yaml.load_all(content, Loader=yaml.CSafeLoader) if document]
    except yaml.YAMLError as error:
        raise Refused(400, f"not YAML: {error}") from None
    if not documents or not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
        raise Refused(400, "unknown template format")
    if len(documents) == 1:
        return documents[0]
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _tasks(run: Any, steps: Mapping[str, str | None]) -> tuple[list[Any], dict[str, str]]:
    """Return a run's task details and the pods of its steps.

    A step S is seven nodes of Argo: S-driver, S-driver(0), S, S(0), executor, executor(0), of which the last is a pod
    with the step's container. A task names the nodes under it, not its own.
    """
    made, pods, numbers = [], {}, itertools.count(1_000_000_000)
    at = run.created_at

    def add(name: str, history: list[str | None], seconds: int, children: int = 0) -> list[str]:
        nodes = [f"retrain-{run.run_id[-5:]}-{next(numbers)}" for _ in range(children)]
        ended = history[-1] not in ACTIVE
        made.append(models.V2beta1PipelineTaskDetail(
            run_id=run.run_id, task_id=str(uuid.UUID(int=next(numbers))), display_name=name, create_time=run.created_at,
            start_time=at, end_time=at + timedelta(seconds=seconds) if ended else None, state=history[-1],
            state_history=[models.V2beta1RuntimeStatus(update_time=at, state=state) for state in history],
            child_tasks=[models.PipelineTaskDetailChildTask(pod_name=node) for node in nodes] or None,
        ))  # fmt: skip
        return nodes

    for step, state in steps.items():
        if state is None:
            add(f"{step}-driver", [None], 0, 1)
            add(step, [None], 0, 1)
            continue
        add(f"{step}-driver", ["RUNNING", "SUCCEEDED"], 10, 1)
        add(f"{step}-driver(0)", ["PENDING", "SUCCEEDED"], 5, 1)
        at += timedelta(seconds=10)
        if state == "CACHED":
            for name in (step, f"{step}(0)"):
                add(name, ["SUCCEEDED"], 0, 1)
            add("executor", ["SKIPPED"], 0)
            continue
        shown: list[str | None] = ["RUNNING"] if state in ACTIVE else ["RUNNING", state]
        for name in (step, f"{step}(0)"):
            add(name, shown, 20, 1)
        (pods[step],) = add("executor", shown, 20, 1)
        add("executor(0)", ["PENDING"] if state == "PENDING" else ["PENDING", *shown], 10)
        at += timedelta(seconds=20)
    return made, pods


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": message, "code": _GRPC.get(status, 2), "message": message, "details": []}


def _read(body: Any, model: type) -> Any:
    """Return the JSON as one of the client's models; refuse what it does not know."""
    if not isinstance(body, dict):
        raise Refused(400, "a JSON object is expected")
    _check_fields(body, model)
    try:
        return _model(json.dumps(body), model)
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused(400, f"invalid {model.__name__}: {error}") from None


def _model(text: str | bytes, model: type) -> Any:
    return _client._ApiClient__deserialize(json.loads(text), model)


def _check_fields(body: dict[str, Any], model: Any) -> None:
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, value in body.items():
        if key not in names:
            raise Refused(400, f"unknown field '{key}' in {model.__name__}")
        inner = getattr(models, model.openapi_types[names[key]], None)
        if not inner or value is None:
            continue
        if not inner.openapi_types:  # an enumeration
            if value not in inner.allowable_values:
                raise Refused(400, f"invalid value for enum field {key}: {value!r}")
        elif not isinstance(value, dict):
            raise Refused(400, f"{key}: an object is expected")
        else:
            _check_fields(value, inner)


def _one(known: dict[str, Any], name: str, what: str) -> Any:
    if name in known:
        return known[name]
    text = recorded_error("pipeline by name missing" if what == "pipeline" else "run missing")
    raise Refused(404, re.sub("0{8}-0{4}-0{4}-0{4}-0{12}|nosuch", name, text))


def _page(request: Request, objects: list[Any], response: type, name: str) -> Any:
    """Return one page of what the filter lets through, oldest first; of one second's in the order of their ids."""
    chosen = _filtered(objects, request.query.get("filter"))
    field_name, _, direction = request.query.get("sort_by", "created_at").partition(" ")
    chosen = sorted(
        chosen, key=lambda one: (str(getattr(one, field_name)), _identity(one)), reverse=direction == "desc"
    )
    if not chosen:
        return {}
    start, size = int(request.query.get("page_token") or 0), int(request.query.get("page_size") or 20)
    following = str(start + size) if start + size < len(chosen) else None
    return response(**{name: chosen[start : start + size], "total_size": len(chosen), "next_page_token": following})


def _identity(one: Any) -> str:
    names = ("run_id", "pipeline_version_id", "pipeline_id", "experiment_id")
    return next(str(getattr(one, name)) for name in names if getattr(one, name, None))


def _filtered(objects: list[Any], text: str | None) -> list[Any]:
    predicates = json.loads(unquote(text)).get("predicates", []) if text else []
    return [one for one in objects if all(_holds(one, predicate) for predicate in predicates)]


def _holds(one: Any, predicate: dict[str, Any]) -> bool:
    """Return whether one passes; K26 says which fields and operations work."""
    key, operation = predicate["key"], predicate["operation"]
    if key not in _FILTERS:
        raise Refused(400, recorded_error("filter field").replace("pipeline_version_id", key))
    value = getattr(one, "display_name" if key == "name" and not hasattr(one, "name") else key)
    if operation == "IN":
        return value in predicate["string_values"]["values"]
    if operation == "IS_SUBSTRING" and key == "display_name":
        return predicate["string_value"] in (value or "")
    if operation == "GREATER_THAN" and key in ("created_at", "scheduled_at"):
        return bool(value > datetime.fromisoformat(predicate["timestamp_value"]))
    if operation in ("EQUALS", 1):
        return bool(value == predicate["string_value"])
    raise Refused(400, f"operation {operation} of {key} was not recorded")


def _of(request: Request, field_name: str, objects: Any) -> list[Any]:
    wanted = request.query.get(field_name)
    return [one for one in objects if not wanted or getattr(one, field_name) in (wanted, None)]


def _create_experiment(backend: KfpBackend, request: Request) -> Any:
    given = _read(request.body, models.V2beta1Experiment)
    if not given.display_name:
        raise Refused(400, "experiment name is empty")
    if any(
        (e.display_name, e.namespace) == (given.display_name, given.namespace) for e in backend.experiments.values()
    ):
        raise Refused(409, f"already exist error: an experiment named {given.display_name}")
    given.experiment_id, given.created_at = backend._new_id(), backend._now()
    given.storage_state = "AVAILABLE"
    backend.experiments[given.experiment_id] = given
    return given


def _create_pipeline(backend: KfpBackend, request: Request) -> Any:
    given = _read(request.body, models.V2beta1Pipeline)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", given.name):
        raise Refused(400, f"pipeline's name must be a DNS subdomain: {given.name}")
    if any((p.name, p.namespace) == (given.name, given.namespace) for p in backend.pipelines.values()):
        raise Refused(409, f"already exist error: a pipeline named {given.name}")
    given.pipeline_id, given.created_at = backend._new_id(), backend._now()
    backend.pipelines[given.pipeline_id] = given
    return given


def _upload_version(backend: KfpBackend, request: Request) -> Any:
    query = request.query
    return backend._add_version(query.get("pipelineid", ""), query, query.get("name", ""), request.body)


def _pipeline_by_name(backend: KfpBackend, request: Request, name: str) -> Any:
    for pipeline in _of(request, "namespace", backend.pipelines.values()):
        if pipeline.name == name:
            return pipeline
    return _one({}, name, "pipeline")


def _delete_version(backend: KfpBackend, request: Request, pipeline_id: str, version_id: str) -> Any:
    _one(backend.versions, version_id, "pipeline version")
    del backend.versions[version_id]
    return {}


def _create_run(backend: KfpBackend, request: Request) -> Any:
    """The same twice makes two runs of one name (K15)."""
    given = _read(request.body, models.V2beta1Run)
    if not given.display_name:
        raise Refused(400, "the run's name is empty")
    return backend.add_run(given)


def _terminate_run(backend: KfpBackend, request: Request, run_id: str) -> Any:
    if _one(backend.runs, run_id, "run").state in ACTIVE:
        backend.set_state(run_id, "CANCELING")
        if run_id in backend.ghosts:
            raise Refused(500, f"Failed to terminate a run: workflow of run {run_id} not found")
        backend.end_later(run_id, "FAILED", TERMINATION)
    return {}


def _retry_run(backend: KfpBackend, request: Request, run_id: str) -> Any:
    """Its exit handler does not run again (K14)."""
    if _one(backend.runs, run_id, "run").state != "FAILED" or run_id in backend.ghosts:
        raise Refused(400, f"Failed to retry a run: run {run_id} has not failed")
    backend.set_state(run_id, "RUNNING")
    return {}


def _read_log(backend: KfpBackend, request: Request, run_id: str, node: str) -> str:
    """Whoever reaches the port may read (K5)."""
    if (run_id, node) not in backend.logs:
        raise Refused(500, f"failed to read the log of {node}")
    return backend.logs[run_id, node]


def _archive_run(backend: KfpBackend, request: Request, run_id: str) -> Any:
    _one(backend.runs, run_id, "run").storage_state = "ARCHIVED"
    return {}


def _delete_run(backend: KfpBackend, request: Request, run_id: str) -> Any:
    _one(backend.runs, run_id, "run")
    del backend.runs[run_id]
    return {}


def _list(response: type, name: str, choose: Callable[..., list[Any]]) -> Callable[..., Any]:
    return lambda backend, request, *ids: _page(request, choose(backend, request, *ids), response, name)


_ID = "([^/:]+)"
_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
    (method, re.compile(path), act)
    for method, path, act in (
        ("GET", "/healthz", lambda b, r: {
            "tag_name": b.version, "multi_user": bool(b.namespace), "pipeline_store": "kubernetes"
        }),
        ("GET", f"/apis/v1alpha1/runs/{_ID}/nodes/{_ID}/log", _read_log),
        ("POST", "/experiments", _create_experiment),
        ("GET", "/experiments", _list(
            models.V2beta1ListExperimentsResponse, "experiments",
            lambda b, r: _of(r, "namespace", b.experiments.values()),
        )),
        ("POST", "/pipelines", _create_pipeline),
        ("POST", "/pipelines/upload_version", _upload_version),
        ("GET", f"/pipelines/names/{_ID}", _pipeline_by_name),
        ("GET", f"/pipelines/{_ID}/versions", _list(
            models.V2beta1ListPipelineVersionsResponse, "pipeline_versions",
            lambda b, r, pipeline: [v for v in b.versions.values() if v.pipeline_id == pipeline],
        )),
        ("DELETE", f"/pipelines/{_ID}/versions/{_ID}", _delete_version),
        ("POST", "/runs", _create_run),
        ("GET", "/runs", _list(
            models.V2beta1ListRunsResponse, "runs", lambda b, r: _of(r, "experiment_id", b.runs.values())
        )),
        ("GET", f"/runs/{_ID}", lambda b, r, run_id: _one(b.runs, run_id, "run")),
        ("DELETE", f"/runs/{_ID}", _delete_run),
        ("POST", f"/runs/{_ID}:terminate", _terminate_run),
        ("POST", f"/runs/{_ID}:retry", _retry_run),
        ("POST", f"/runs/{_ID}:archive", _archive_run),
    )
]  # fmt: skip


class InProcess:
    """In place of kfp_server_api's REST client: the same requests and answers, without a socket."""

    def __init__(self, backend: KfpBackend) -> None:
        self._backend = backend

    def request(
        self, method: str, url: str, *, query_params: Any = None, headers: Any = None, body: Any = None,
        post_params: Any = None, **_: Any,
    ) -> Any:  # fmt: skip
        if post_params:
            body = next(value[1] for name, value in post_params if name == "uploadfile")
        else:
            body = json.loads(json.dumps(body))
        path = urlsplit(url).path.removeprefix(PREFIX)
        query = {key: str(value) for key, value in query_params or []}
        token = (headers or {}).get("authorization", "")
        try:
            status, answer = self._backend.handle(Request(method.upper(), path, query, body, token))
        except Dropped:
            raise urllib3.exceptions.ProtocolError("connection closed without an answer") from None
        response = _Response(status, *_encoded(answer))
        if status != 200:
            raise kfp_server_api.ApiException(http_resp=response)
        return response

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ("GET", "POST", "DELETE", "PATCH"):
            raise AttributeError(name)
        return lambda url, **arguments: self.request(name, url, **arguments)


def _encoded(answer: Any) -> tuple[bytes, str]:
    return (
        (answer.encode(), "text/plain")
        if isinstance(answer, str)
        else (json.dumps(answer).encode(), "application/json")
    )


@dataclass
class _Response:
    status: int
    data: Any
    kind: str
    reason: str = ""

    def getheader(self, name: str, default: Any = None) -> Any:
        return self.kind if name.lower() == "content-type" else default

    def getheaders(self) -> dict[str, str]:
        return {"content-type": self.kind}


@contextmanager
def hearing(status: int = 401, page: bytes = b"") -> Iterator[tuple[str, list[str | None]]]:
    """Answer everything with a status and an HTML page; give the url, and each request's Authorization as it comes."""
    heard: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        do_GET = do_POST = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url, heard


@contextmanager
def serve(backend: KfpBackend) -> Iterator[str]:
    """Serve `backend` on a local socket, one request at a time; give its url."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # headers and body in one packet: two would wait for each other

        def _any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            try:
                body = self._body(content)
                with lock:
                    status, answer = backend.handle(
                        Request(
                            self.command,
                            url.path.removeprefix("/pipeline").removeprefix(PREFIX),
                            dict(parse_qsl(url.query)),
                            body,
                            self.headers.get("Authorization", ""),
                        )
                    )
            except Dropped:
                self.close_connection = True
                return
            except ValueError as error:
                status, answer = 400, _error(400, f"not JSON: {error}")
            data, kind = _encoded(answer)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self, content: bytes) -> Any:
            if not self.headers.get("Content-Type", "").startswith("multipart/"):
                return json.loads(content) if content else None
            from io import BytesIO

            from werkzeug.formparser import parse_form_data

            _, _, files = parse_form_data(
                {
                    "wsgi.input": BytesIO(content),
                    "REQUEST_METHOD": "POST",
                    "CONTENT_LENGTH": str(len(content)),
                    "CONTENT_TYPE": self.headers["Content-Type"],
                }
            )
            return files["uploadfile"].read()

        do_GET = do_POST = do_DELETE = do_PATCH = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
