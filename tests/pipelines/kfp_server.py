"""A stand-in for the API server of Kubeflow Pipelines (v2beta1), for tests. It is no cluster: no pod ever runs.

What it follows is the published client (kfp_server_api): a request is read with the client's own models, an
unknown field or a wrong enumeration is refused as the gRPC gateway refuses it, and each answer is one of those
models. State lives in memory. `tick` does what KFP's controller of scheduled workflows does with recurring runs
(backend/src/crd/controller/scheduledworkflow in kubeflow/pipelines: no_catchup runs the latest missed slot,
max_concurrency holds a slot back, `[[ScheduledTime.FORMAT]]` and `[[RunUUID]]` are replaced in parameters).
With a `namespace` it is a multi-user installation: what the API server's canAccess... functions ask of a call
(backend/src/apiserver/server there), a namespace or the id of something in one, is asked here.

    backend = KfpBackend()
    with serve(backend) as url: ...                  over a socket: kfp.Client(host=url), kfp_server_api
    api_client.rest_client = InProcess(backend)      the same requests without a socket

`backend.fault` may name what goes wrong with a request; see `Fault`. Tests move runs on with `backend.set_state`.
"""

from __future__ import annotations

import http.server
import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
import urllib3
import yaml
from kfp_server_api import models

PREFIX = "/apis/v2beta1"
ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED")
_GRPC = {400: 3, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}
_client = kfp_server_api.ApiClient()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    kind: `refuse` answers `status` and does nothing; `act-then-fail` does it and answers `status`; `drop` closes the
    connection and does nothing; `act-then-drop` does it and closes; `late` closes now and does it when
    `backend.land()` is called.
    """

    kind: str
    status: int = 500


@dataclass(frozen=True)
class Request:
    """One call of the API."""

    method: str
    path: str
    """Without `/apis/v2beta1`."""
    query: dict[str, str]
    body: Any
    """Decoded JSON, or the bytes of the uploaded file."""

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
    fault: Callable[[Request], Fault | None] = lambda request: None
    experiments: dict[str, Any] = field(default_factory=dict)
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurring_runs: dict[str, Any] = field(default_factory=dict)
    last_triggered: dict[str, datetime] = field(default_factory=dict)
    """By recurring run: the slot that it started last."""
    log: list[Request] = field(default_factory=list)
    """Every request that changes something and was carried out, oldest first."""
    late: list[Request] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def handle(self, request: Request) -> tuple[int, Any]:
        """Return status and JSON of the answer. Raises Dropped."""
        fault = self.fault(request)
        if fault is None:
            return self._answer(request)
        if fault.kind in ("act-then-fail", "act-then-drop"):
            self._answer(request)
        elif fault.kind == "late":
            self.late.append(request)
        if fault.kind in ("refuse", "act-then-fail"):
            return fault.status, _error(fault.status, "a fault of the test")
        raise Dropped

    def land(self) -> None:
        """Carry out the requests that a `late` fault held back."""
        while self.late:
            self._answer(self.late.pop(0))

    def set_state(self, run_id: str, state: str) -> None:
        """Let a run reach `state`, such as RUNNING or SUCCEEDED."""
        run = self.runs[run_id]
        run.state = state
        run.state_history = [
            *(run.state_history or []),
            models.V2beta1RuntimeStatus(update_time=self.clock(), state=state),
        ]
        run.finished_at = None if state in ACTIVE else self.clock()

    def tick(self) -> None:
        """Start the runs of recurring runs whose time has come."""
        for recurring in list(self.recurring_runs.values()):
            while recurring.status == "ENABLED" and (slot := self._due(recurring)) is not None:
                self.last_triggered[recurring.recurring_run_id] = slot
                self._start_scheduled(recurring, slot)

    def _due(self, recurring: Any) -> datetime | None:
        from cronsim import CronSim

        now, schedule = self.clock(), recurring.trigger.cron_schedule
        start = (
            self.last_triggered.get(recurring.recurring_run_id) or schedule.start_time or recurring.created_at
        )
        if schedule.start_time and schedule.start_time > start:
            start = schedule.start_time
        slots = CronSim(schedule.cron.replace("?", "*"), start.astimezone(UTC))
        slot = next(slots)
        if slot > now or self._active(recurring) >= int(recurring.max_concurrency or 1):
            return None
        while recurring.no_catchup and (later := next(slots)) <= now:
            slot = later
        return None if schedule.end_time and slot > schedule.end_time else slot

    def _active(self, recurring: Any) -> int:
        ours = recurring.recurring_run_id
        return sum(run.recurring_run_id == ours and run.state in ACTIVE for run in self.runs.values())

    def _start_scheduled(self, recurring: Any, slot: datetime) -> None:
        number = next(self._count)
        run = models.V2beta1Run(
            experiment_id=recurring.experiment_id, display_name=f"{recurring.display_name}-{number}",
            pipeline_version_reference=recurring.pipeline_version_reference,
            runtime_config=recurring.runtime_config, service_account=recurring.service_account,
        )  # fmt: skip
        self._add_run(run, slot, recurring)

    def _add_run(self, run: Any, slot: datetime | None = None, recurring: Any = None) -> Any:
        run.run_id, run.created_at, run.storage_state = self._new_id(), self.clock(), "AVAILABLE"
        run.scheduled_at = slot or run.created_at
        run.recurring_run_id = recurring.recurring_run_id if recurring else None
        given = (run.runtime_config.parameters if run.runtime_config else None) or {}
        run.runtime_config = models.V2beta1RuntimeConfig(
            parameters=_formatted(given, run.run_id, slot, run.created_at)
        )
        run.pipeline_version_reference = self._pinned(run.pipeline_version_reference)
        self._check_parameters(run)
        run.experiment_id = run.experiment_id or self._default_experiment()
        self.runs[run.run_id] = run
        self.set_state(run.run_id, "PENDING")
        return run

    def _pinned(self, reference: Any) -> Any:
        """Return the reference with a version: an empty one means the newest created."""
        if reference is None or not reference.pipeline_id:
            raise Refused(400, "a pipeline spec or a pipeline version is needed")
        if reference.pipeline_version_id:
            if reference.pipeline_version_id not in self.versions:
                raise Refused(404, f"pipeline version {reference.pipeline_version_id} not found")
            return reference
        own = [v for v in self.versions.values() if v.pipeline_id == reference.pipeline_id]
        if not own:
            raise Refused(404, f"pipeline {reference.pipeline_id} has no version")
        return models.V2beta1PipelineVersionReference(
            pipeline_id=reference.pipeline_id, pipeline_version_id=own[-1].pipeline_version_id
        )

    def _check_parameters(self, run: Any) -> None:
        """Refuse a parameter that the pipeline does not have, and the absence of one that it needs."""
        spec = self.versions[run.pipeline_version_reference.pipeline_version_id].pipeline_spec
        spec = spec.get("pipeline_spec", spec)
        inputs = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
        given = run.runtime_config.parameters
        if unknown := sorted(set(given) - set(inputs)):
            raise Refused(400, f"parameter not found in the pipeline: {unknown[0]}")
        for name, definition in inputs.items():
            optional = definition.get("isOptional") or "defaultValue" in definition
            if name not in given and not optional:
                raise Refused(
                    400, f"parameter {name} is not optional, yet has neither default value nor user value"
                )

    def _answer(self, request: Request) -> tuple[int, Any]:
        for method, pattern, act in _ROUTES:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                try:
                    self._check_place(request)
                    answer = act(self, request, *map(unquote, found.groups()))
                except Refused as refused:
                    return refused.status, _error(refused.status, str(refused))
                if request.changes:
                    self.log.append(request)
                return 200, _client.sanitize_for_serialization(answer)
        return 404, _error(404, f"no such method: {request.method} {request.path}")

    def _check_place(self, request: Request) -> None:
        """Refuse what a multi-user installation refuses: a call that says nothing of a namespace, or another one."""
        if not self.namespace or not re.fullmatch(
            "/(experiments|pipelines(/upload|/names/[^/]+)?|runs|recurringruns)", request.path
        ):
            return  # the rest names something that lies in a namespace
        body = request.body if isinstance(request.body, dict) else {}
        experiment = request.query.get("experiment_id") or body.get("experiment_id")
        given = request.query.get("namespace") or body.get("namespace")
        if not given and experiment in self.experiments:
            given = self.experiments[experiment].namespace
        if not given:
            raise Refused(400, "a resource cannot have an empty namespace in multi-user mode")
        if given != self.namespace:
            raise Refused(403, f"no access to namespace {given}")

    def _new_id(self) -> str:
        return str(uuid.UUID(int=next(self._count)))

    def _default_experiment(self) -> str:
        for known in self.experiments.values():
            if known.display_name == "Default":
                return str(known.experiment_id)
        return str(self._add_experiment(models.V2beta1Experiment(display_name="Default")).experiment_id)

    def _add_experiment(self, given: Any) -> Any:
        given.experiment_id, given.created_at = self._new_id(), self.clock()
        given.storage_state = "AVAILABLE"
        self.experiments[given.experiment_id] = given
        return given

    def _add_pipeline(self, name: str, display_name: str, description: str, namespace: str) -> Any:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
            raise Refused(400, f"pipeline's name must be a DNS subdomain: {name}")
        if any((p.name, p.namespace) == (name, namespace or None) for p in self.pipelines.values()):
            raise Refused(409, f"already exist error: a pipeline named {name}")
        pipeline = models.V2beta1Pipeline(
            pipeline_id=self._new_id(), name=name, display_name=display_name or name, description=description or None,
            namespace=namespace or None, created_at=self.clock(),
        )  # fmt: skip
        self.pipelines[pipeline.pipeline_id] = pipeline
        return pipeline

    def _add_version(self, pipeline_id: str, query: dict[str, str], name: str, content: bytes) -> Any:
        _one(self.pipelines, pipeline_id, "pipeline")
        if any((v.pipeline_id, v.name) == (pipeline_id, name) for v in self.versions.values()):
            raise Refused(409, f"already exist error: a version named {name}")
        version = models.V2beta1PipelineVersion(
            pipeline_id=pipeline_id, pipeline_version_id=self._new_id(), name=name,
            display_name=query.get("display_name") or name, description=query.get("description"),
            created_at=self.clock(), pipeline_spec=_read_spec(content),
        )  # fmt: skip
        self.versions[version.pipeline_version_id] = version
        return version


def _read_spec(content: bytes) -> Any:
    """Return the pipeline spec of an uploaded YAML; a platform spec beside it."""
    try:
        documents = [document for document in yaml.safe_load_all(content) if document]
    except yaml.YAMLError as error:
        raise Refused(400, f"not YAML: {error}") from None
    if not documents or not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
        raise Refused(400, "unknown template format")
    if len(documents) == 1:
        return documents[0]
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _formatted(value: Any, run_id: str, slot: datetime | None, now: datetime) -> Any:
    """Replace KFP's macros in strings; in a run that no schedule started only those of the run."""
    if isinstance(value, dict):
        return {key: _formatted(inner, run_id, slot, now) for key, inner in value.items()}
    if isinstance(value, list):
        return [_formatted(inner, run_id, slot, now) for inner in value]
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match[str]) -> str:
        name, _, layout = match[1].partition(".")
        if name == "RunUUID":
            return run_id
        moment = {"ScheduledTime": slot, "CurrentTime": now}.get(name)
        return match[0] if moment is None else _go_format(moment, layout or "20060102150405")

    return re.sub(r"\[\[(.*?)\]\]", substitute, value)


def _go_format(moment: datetime, layout: str) -> str:
    """Format with a layout of Go's time package, as far as digits go."""
    codes = {"2006": "%Y", "01": "%m", "02": "%d", "15": "%H", "04": "%M", "05": "%S"}
    return re.sub(
        "2006|01|02|15|04|05", lambda match: moment.astimezone(UTC).strftime(codes[match[0]]), layout
    )


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": message, "code": _GRPC.get(status, 2), "message": message, "details": []}


def _read(body: Any, model: type) -> Any:
    """Return the JSON as one of the client's models; refuse what it does not know."""
    if not isinstance(body, dict):
        raise Refused(400, "a JSON object is expected")
    _check_fields(body, model)
    try:
        return _client._ApiClient__deserialize(body, model)
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused(400, f"invalid {model.__name__}: {error}") from None


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
    if name not in known:
        raise Refused(404, f"{what} {name} not found")
    return known[name]


def _page(request: Request, objects: list[Any], response: type, name: str) -> Any:
    """Return one page of what the filter lets through, oldest first."""
    chosen = _filtered(objects, request.query.get("filter"))
    field_name, _, direction = request.query.get("sort_by", "created_at").partition(" ")
    chosen = sorted(chosen, key=lambda one: str(getattr(one, field_name)), reverse=direction == "desc")
    start, size = int(request.query.get("page_token") or 0), int(request.query.get("page_size") or 20)
    following = str(start + size) if start + size < len(chosen) else None
    return response(**{
        name: chosen[start : start + size] or None, "total_size": len(chosen), "next_page_token": following
    })  # fmt: skip


def _filtered(objects: list[Any], text: str | None) -> list[Any]:
    predicates = json.loads(unquote(text)).get("predicates", []) if text else []
    for predicate in predicates:
        objects = [one for one in objects if _holds(one, predicate)]
    return objects


def _holds(one: Any, predicate: dict[str, Any]) -> bool:
    key = predicate["key"]
    value = getattr(one, "display_name" if key == "name" and not hasattr(one, "name") else key)
    wanted = predicate.get("string_value", predicate.get("stringValue"))
    operation = predicate["operation"]
    if operation in ("EQUALS", 1):
        return bool(value == wanted)
    if operation in ("NOT_EQUALS", 2):
        return bool(value != wanted)
    if operation in ("IS_SUBSTRING", 9):
        return wanted in (value or "")
    raise Refused(400, f"operation {operation} is not supported here")


def _namespaced(request: Request, objects: Iterator[Any] | list[Any]) -> list[Any]:
    wanted = request.query.get("namespace")
    return [one for one in objects if not wanted or one.namespace in (wanted, None)]


def _in_experiment(request: Request, objects: Any) -> list[Any]:
    wanted = request.query.get("experiment_id")
    return [one for one in objects if not wanted or one.experiment_id == wanted]


def _create_experiment(backend: KfpBackend, request: Request) -> Any:
    given = _read(request.body, models.V2beta1Experiment)
    if not given.display_name:
        raise Refused(400, "experiment name is empty")
    if any(
        (e.display_name, e.namespace) == (given.display_name, given.namespace)
        for e in backend.experiments.values()
    ):
        raise Refused(409, f"already exist error: an experiment named {given.display_name}")
    return backend._add_experiment(given)


def _create_pipeline(backend: KfpBackend, request: Request) -> Any:
    given = _read(request.body, models.V2beta1Pipeline)
    return backend._add_pipeline(
        given.name or given.display_name, given.display_name, given.description, given.namespace
    )


def _upload_pipeline(backend: KfpBackend, request: Request) -> Any:
    _read_spec(request.body)
    query = request.query
    name = query.get("name") or query.get("display_name", "")
    pipeline = backend._add_pipeline(
        name, query.get("display_name", ""), query.get("description", ""), query.get("namespace", "")
    )
    backend._add_version(pipeline.pipeline_id, query, name, request.body)
    return pipeline


def _upload_version(backend: KfpBackend, request: Request) -> Any:
    query = request.query
    return backend._add_version(query.get("pipelineid", ""), query, query.get("name", ""), request.body)


def _pipeline_by_name(backend: KfpBackend, request: Request, name: str) -> Any:
    for pipeline in _namespaced(request, list(backend.pipelines.values())):
        if pipeline.name == name:
            return pipeline
    raise Refused(404, f"pipeline {name} not found")


def _delete_pipeline(backend: KfpBackend, request: Request, pipeline_id: str) -> Any:
    _one(backend.pipelines, pipeline_id, "pipeline")
    if any(v.pipeline_id == pipeline_id for v in backend.versions.values()):
        raise Refused(400, "the pipeline has versions")
    del backend.pipelines[pipeline_id]
    return {}


def _delete_version(backend: KfpBackend, request: Request, pipeline_id: str, version_id: str) -> Any:
    _one(backend.versions, version_id, "pipeline version")
    del backend.versions[version_id]
    return {}


def _create_run(backend: KfpBackend, request: Request) -> Any:
    given = _read(request.body, models.V2beta1Run)
    if not given.display_name:
        raise Refused(400, "the run's name is empty")
    if given.experiment_id:
        _one(backend.experiments, given.experiment_id, "experiment")
    return backend._add_run(given)


def _terminate_run(backend: KfpBackend, request: Request, run_id: str) -> Any:
    run = _one(backend.runs, run_id, "run")
    if run.state in ACTIVE:
        backend.set_state(run_id, "CANCELED")
    return {}


def _archive_run(storage: str) -> Callable[..., Any]:
    def act(backend: KfpBackend, request: Request, run_id: str) -> Any:
        _one(backend.runs, run_id, "run").storage_state = storage
        return {}

    return act


def _delete_run(backend: KfpBackend, request: Request, run_id: str) -> Any:
    _one(backend.runs, run_id, "run")
    del backend.runs[run_id]
    return {}


def _create_recurring(backend: KfpBackend, request: Request) -> Any:
    given = _read(request.body, models.V2beta1RecurringRun)
    if not given.display_name:
        raise Refused(400, "the recurring run's name is empty")
    _one(backend.experiments, given.experiment_id, "experiment")
    if not given.trigger or not given.trigger.cron_schedule:
        raise Refused(400, "a cron schedule is needed")  # the periodic kind is not followed here
    _check_cron(given.trigger.cron_schedule.cron)
    if not 1 <= int(given.max_concurrency or 0) <= 10:
        raise Refused(400, f"max_concurrency {given.max_concurrency} out of range: 1 to 10")
    backend._pinned(given.pipeline_version_reference)  # it must exist; an empty one stays empty
    given.recurring_run_id, given.created_at = backend._new_id(), backend.clock()
    given.updated_at = given.created_at
    given.status = "ENABLED" if given.mode == "ENABLE" else "DISABLED"
    backend.recurring_runs[given.recurring_run_id] = given
    return given


def _check_cron(text: str) -> None:
    """Refuse what github.com/robfig/cron v1 refuses: other than 6 fields, Sunday as 7, L and #."""
    from cronsim import CronSim, CronSimError

    fields = (text or "").split()
    if len(fields) != 6 or re.search(r"[L#W7]", fields[5]) or re.search("[LW]", fields[3]):
        raise Refused(400, f"the cron schedule is invalid: {text!r}")
    try:
        CronSim(text.replace("?", "*"), datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise Refused(400, f"the cron schedule is invalid: {error}") from None


def _switch_recurring(mode: str, status: str) -> Callable[..., Any]:
    def act(backend: KfpBackend, request: Request, recurring_run_id: str) -> Any:
        recurring = _one(backend.recurring_runs, recurring_run_id, "recurring run")
        recurring.mode, recurring.status, recurring.updated_at = mode, status, backend.clock()
        return {}

    return act


def _delete_recurring(backend: KfpBackend, request: Request, recurring_run_id: str) -> Any:
    _one(backend.recurring_runs, recurring_run_id, "recurring run")
    del backend.recurring_runs[recurring_run_id]
    return {}


def _getter(name: str, what: str, position: int = 0) -> Callable[..., Any]:
    return lambda backend, request, *ids: _one(getattr(backend, name), ids[position], what)


def _list(response: type, name: str, choose: Callable[..., list[Any]]) -> Callable[..., Any]:
    return lambda backend, request, *ids: _page(request, choose(backend, request, *ids), response, name)


_ID = "([^/:]+)"
_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
    (method, re.compile(path), act)
    for method, path, act in (
        ("GET", "/healthz", lambda b, r: models.V2beta1GetHealthzResponse(multi_user=bool(b.namespace))),
        ("POST", "/experiments", _create_experiment),
        ("GET", "/experiments", _list(
            models.V2beta1ListExperimentsResponse, "experiments", lambda b, r: _namespaced(r, b.experiments.values())
        )),
        ("GET", f"/experiments/{_ID}", _getter("experiments", "experiment")),
        ("POST", "/pipelines", _create_pipeline),
        ("POST", "/pipelines/upload", _upload_pipeline),
        ("POST", "/pipelines/upload_version", _upload_version),
        ("GET", "/pipelines", _list(
            models.V2beta1ListPipelinesResponse, "pipelines", lambda b, r: _namespaced(r, b.pipelines.values())
        )),
        ("GET", f"/pipelines/names/{_ID}", _pipeline_by_name),
        ("GET", f"/pipelines/{_ID}", _getter("pipelines", "pipeline")),
        ("DELETE", f"/pipelines/{_ID}", _delete_pipeline),
        ("GET", f"/pipelines/{_ID}/versions", _list(
            models.V2beta1ListPipelineVersionsResponse, "pipeline_versions",
            lambda b, r, pipeline: [v for v in b.versions.values() if v.pipeline_id == pipeline],
        )),
        ("GET", f"/pipelines/{_ID}/versions/{_ID}", _getter("versions", "pipeline version", 1)),
        ("DELETE", f"/pipelines/{_ID}/versions/{_ID}", _delete_version),
        ("POST", "/runs", _create_run),
        ("GET", "/runs", _list(
            models.V2beta1ListRunsResponse, "runs", lambda b, r: _in_experiment(r, b.runs.values())
        )),
        ("GET", f"/runs/{_ID}", _getter("runs", "run")),
        ("DELETE", f"/runs/{_ID}", _delete_run),
        ("POST", f"/runs/{_ID}:terminate", _terminate_run),
        ("POST", f"/runs/{_ID}:archive", _archive_run("ARCHIVED")),
        ("POST", f"/runs/{_ID}:unarchive", _archive_run("AVAILABLE")),
        ("POST", "/recurringruns", _create_recurring),
        ("GET", "/recurringruns", _list(
            models.V2beta1ListRecurringRunsResponse, "recurring_runs",
            lambda b, r: _in_experiment(r, b.recurring_runs.values()),
        )),
        ("GET", f"/recurringruns/{_ID}", _getter("recurring_runs", "recurring run")),
        ("DELETE", f"/recurringruns/{_ID}", _delete_recurring),
        ("POST", f"/recurringruns/{_ID}:enable", _switch_recurring("ENABLE", "ENABLED")),
        ("POST", f"/recurringruns/{_ID}:disable", _switch_recurring("DISABLE", "DISABLED")),
    )
]  # fmt: skip


class InProcess:
    """In place of kfp_server_api's REST client: the same requests and answers, without a socket."""

    def __init__(self, backend: KfpBackend) -> None:
        self._backend = backend

    def request(
        self,
        method: str,
        url: str,
        *,
        query_params: Any = None,
        body: Any = None,
        post_params: Any = None,
        **_: Any,
    ) -> Any:
        if post_params:
            body = next(value[1] for name, value in post_params if name == "uploadfile")
        else:
            body = json.loads(json.dumps(body))
        path = urlsplit(url).path.removeprefix(PREFIX)
        query = {key: str(value) for key, value in query_params or []}
        try:
            status, answer = self._backend.handle(Request(method.upper(), path, query, body))
        except Dropped:
            raise urllib3.exceptions.ProtocolError("connection closed without an answer") from None
        response = _Response(status, json.dumps(answer).encode())
        if status != 200:
            raise kfp_server_api.ApiException(http_resp=response)
        return response

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ("GET", "POST", "DELETE", "PATCH"):
            raise AttributeError(name)
        return lambda url, **arguments: self.request(name, url, **arguments)


@dataclass
class _Response:
    status: int
    data: Any
    reason: str = ""

    def getheader(self, name: str, default: Any = None) -> Any:
        return "application/json" if name.lower() == "content-type" else default

    def getheaders(self) -> dict[str, str]:
        return {"content-type": "application/json"}


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
                            self.command, url.path.removeprefix("/pipeline").removeprefix(PREFIX),
                            dict(parse_qsl(url.query)), body,
                        )
                    )  # fmt: skip
            except Dropped:
                self.close_connection = True
                return
            except ValueError as error:
                status, answer = 400, _error(400, f"not JSON: {error}")
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self, content: bytes) -> Any:
            if not self.headers.get("Content-Type", "").startswith("multipart/"):
                return json.loads(content) if content else None
            from io import BytesIO

            from werkzeug.formparser import parse_form_data

            _, _, files = parse_form_data({
                "wsgi.input": BytesIO(content), "REQUEST_METHOD": "POST",
                "CONTENT_LENGTH": str(len(content)), "CONTENT_TYPE": self.headers["Content-Type"],
            })  # fmt: skip
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
