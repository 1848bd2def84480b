"""Kubeflow Pipelines as a backend, through its published client (kfp_server_api).

What is made here is found again by name: recurring runs are `<schedule>.<identity>` in one experiment, versions are
named by content, runs by task and key. Recurring runs that are named otherwise belong to people and are left alone.
A recurring run always names its version: without one, Kubeflow takes the newest created, and a revert would change
nothing.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from graftline.pipelines.reconcile import claims
from graftline.pipelines.reconcile.desired import Desired, OneRun, Recurring
from graftline.pipelines.reconcile.planning import (
    Action,
    Actual,
    ActualRecurring,
    Create,
    Delete,
    Seen,
    Start,
    Switch,
    Upload,
)
from graftline.pipelines.reconcile.reconcile import BackendError
from graftline.pipelines.reconcile.repository import Work
from graftline.store import Store

EXPERIMENT = "graftline"
MARK = "Made by graftline reconcile."
"""Starts the description of each recurring run that is made here."""
TIMEOUT_SECONDS = 30
ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED")
_NAME = re.compile(r"([a-z0-9-]+)\.([0-9a-f]{12})")
_CERTAIN = (400, 401, 403, 404, 429)
"""Answers after which nothing was created. A 409 or a 5xx may come after the deed."""


class RefusedError(BackendError):
    """The backend refused a call and did nothing."""


class NotFoundError(RefusedError):
    """What the call was about is not there."""


class KubeflowBackend:
    """One experiment of one Kubeflow Pipelines."""

    def __init__(
        self, api_client: Any, store: Store, *, service_account: str = "", experiment: str = EXPERIMENT
    ) -> None:
        """Use an API.

        Args:
            api_client: a `kfp_server_api.ApiClient`; see `connect`.
            store: where intents and claims live.
            service_account: of the runs.
            experiment: the name of the experiment that holds all runs of this repository.
        """
        import kfp_server_api

        self._pipelines = kfp_server_api.PipelineServiceApi(api_client)
        self._uploads = kfp_server_api.PipelineUploadServiceApi(api_client)
        self._runs = kfp_server_api.RunServiceApi(api_client)
        self._recurring = kfp_server_api.RecurringRunServiceApi(api_client)
        self._experiments = kfp_server_api.ExperimentServiceApi(api_client)
        self._store, self._service_account, self._experiment = store, service_account, experiment
        self._experiment_id = ""
        self._versions: dict[str, tuple[str, str]] = {}

    def observe(self, desired: Desired, now: datetime) -> Actual:
        self._find_experiment()
        wanted: list[OneRun | Recurring] = [*desired.recurring, *desired.runs]
        works = {one.work.version: one.work for one in wanted}
        versions = {name: found for name, work in works.items() if (found := self._find_version(work))}
        return Actual(
            versions, tuple(self._list_recurring()), {run.key: self._seen(run) for run in desired.runs}
        )

    def apply(self, action: Action, now: datetime) -> None:
        match action:
            case Upload(work):
                self._upload(work)
            case Create(recurring):
                self._create(recurring)
            case Switch(target, enable):
                api = self._recurring
                enabling, disabling = (
                    api.recurring_run_service_enable_recurring_run,
                    api.recurring_run_service_disable_recurring_run,
                )
                _gone_is_fine(enabling if enable else disabling, target.id)
            case Delete(target):
                _gone_is_fine(self._recurring.recurring_run_service_delete_recurring_run, target.id)
            case Start(run, before):
                self._start(run, before, now)

    def _find_experiment(self) -> None:
        if self._experiment_id:
            return
        found = pages(
            self._experiments.experiment_service_list_experiments, "experiments",
            filter=equals("display_name", self._experiment),
        )  # fmt: skip
        for experiment in found:
            self._experiment_id = experiment.experiment_id

    def _make_experiment(self) -> str:
        import kfp_server_api

        if not self._experiment_id:
            body = kfp_server_api.V2beta1Experiment(
                display_name=self._experiment, description="Scheduled by graftline reconcile."
            )
            made = call(self._experiments.experiment_service_create_experiment, body)
            self._experiment_id = made.experiment_id
        return self._experiment_id

    def _find_version(self, work: Work) -> tuple[str, str] | None:
        """Return the ids of the pipeline and the version; what was found once is not looked up again."""
        if work.version not in self._versions:
            pipeline = self._find_pipeline(work.pipeline)
            for version in self._list_versions(pipeline) if pipeline else ():
                self._versions[version.name or version.display_name] = (pipeline, version.pipeline_version_id)
        return self._versions.get(work.version)

    def _find_pipeline(self, name: str) -> str:
        try:
            found = call(self._pipelines.pipeline_service_get_pipeline_by_name, name)
        except NotFoundError:
            return ""
        return str(found.pipeline_id)

    def _list_versions(self, pipeline_id: str) -> Iterator[Any]:
        def versions(**arguments: Any) -> Any:
            return self._pipelines.pipeline_service_list_pipeline_versions(pipeline_id, **arguments)

        return pages(versions, "pipeline_versions")

    def _list_recurring(self) -> Iterator[ActualRecurring]:
        """Yield the recurring runs that were made here."""
        if not self._experiment_id:
            return
        for one in pages(
            self._recurring.recurring_run_service_list_recurring_runs, "recurring_runs",
            experiment_id=self._experiment_id,
        ):  # fmt: skip
            named = _NAME.fullmatch(one.display_name or "")
            if named and (one.description or "").startswith(MARK):
                enabled = one.status == "ENABLED" or one.mode == "ENABLE"
                yield ActualRecurring(one.recurring_run_id, named[1], named[2], enabled, one.created_at)

    def _seen(self, run: OneRun) -> Seen:
        """Look for a run: first for its claim, which outlives it, then for the run itself."""
        intent = claims.read_intent(self._store, run.schedule, run.slot_file)
        keys = dict.fromkeys([run.key, *([intent[0].key] if intent else [])])
        held = tuple(holder for key in keys if (holder := claims.holder(self._store, key)))
        if held or not self._experiment_id:
            return Seen(intent, held)
        started = tuple(each for key in keys for each in self._find_runs(run.work.task, key))
        return Seen(intent, started, 0 if started else self._active(run.schedule))

    def _find_runs(self, task: str, key: str) -> Iterator[str]:
        from graftline.pipelines.runkey import run_name

        name = run_name(task, key)
        for run in pages(
            self._runs.run_service_list_runs, "runs",
            experiment_id=self._experiment_id, filter=equals("display_name", name),
        ):  # fmt: skip
            if (run.runtime_config.parameters or {}).get("run_key") == key:
                yield run.run_id

    def _active(self, schedule: str) -> int:
        """Return how many runs of a schedule are at work."""
        count = 0
        for state in ACTIVE:
            for run in pages(
                self._runs.run_service_list_runs, "runs",
                experiment_id=self._experiment_id, filter=equals("state", state),
            ):  # fmt: skip
                reason = (run.runtime_config.parameters or {}).get("reason") or ""
                count += (
                    f'"schedule": "{schedule}"' in reason
                )  # as _given writes it; people write what they like
        return count

    def _upload(self, work: Work) -> None:
        """Upload a version, and the pipeline that it belongs to where that is missing."""
        import kfp_server_api

        pipeline = self._find_pipeline(work.pipeline)
        if not pipeline:
            body = kfp_server_api.V2beta1Pipeline(name=work.pipeline, display_name=work.pipeline)
            pipeline = call(self._pipelines.pipeline_service_create_pipeline, body).pipeline_id
        parts = [work.spec["pipelineSpec"], work.spec.get("platformSpec")]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{work.version}.yaml")
            path.write_text("\n---\n".join(json.dumps(part) for part in parts if part))  # JSON is YAML
            call(
                self._uploads.upload_pipeline_version, str(path),
                name=work.version, display_name=work.version, pipelineid=pipeline,
            )  # fmt: skip

    def _create(self, recurring: Recurring) -> None:
        import kfp_server_api

        body = kfp_server_api.V2beta1RecurringRun(
            display_name=recurring.name, description=f"{MARK} Schedule {recurring.schedule}, in UTC: {recurring.cron}",
            experiment_id=self._make_experiment(), pipeline_version_reference=self._reference(recurring.work),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=recurring.parameters),
            service_account=self._service_account or None, max_concurrency=str(recurring.concurrency),
            no_catchup=not recurring.catch_up, mode="DISABLE",
            trigger=kfp_server_api.V2beta1Trigger(
                cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=recurring.cron)
            ),
        )  # fmt: skip
        call(self._recurring.recurring_run_service_create_recurring_run, body)

    def _start(self, run: OneRun, before: tuple[claims.Intent, str] | None, now: datetime) -> None:
        import kfp_server_api

        body = kfp_server_api.V2beta1Run(
            display_name=run.name, description=f"{MARK} Schedule {run.schedule}, {run.slot_file}",
            experiment_id=self._make_experiment(), pipeline_version_reference=self._reference(run.work),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=run.parameters),
            service_account=self._service_account or None,
        )  # fmt: skip
        if not claims.ask(self._store, run.schedule, run.slot_file, run.key, now, before):
            return  # another reconcile is starting it
        try:
            call(self._runs.run_service_create_run, body)
        except RefusedError:
            claims.refused(self._store, run.schedule, run.slot_file)
            raise

    def _reference(self, work: Work) -> Any:
        import kfp_server_api

        pipeline, version = self._versions[work.version]
        return kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=pipeline, pipeline_version_id=version
        )


@contextmanager
def connect(endpoint: str, token: str = "") -> Iterator[Any]:
    """Give a client of the API at `endpoint`; its calls are never repeated behind our back.

    Args:
        endpoint: such as http://localhost:8888 or https://kubeflow.example.com/pipeline.
        token: sent as a bearer token.
    """
    import kfp_server_api

    configuration = kfp_server_api.Configuration(host=endpoint.rstrip("/"))
    configuration.retries = False
    if token:
        configuration.api_key["authorization"] = token
        configuration.api_key_prefix["authorization"] = "Bearer"
    with kfp_server_api.ApiClient(configuration) as client:
        yield client


def call(request: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Make a request; turn what goes wrong into our errors."""
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return request(*arguments, _request_timeout=TIMEOUT_SECONDS, **named)
    except ApiException as error:
        text = f"{error.status} {_message(error)}"
        if error.status == 404:
            raise NotFoundError(text) from None
        raise (RefusedError if error.status in _CERTAIN else BackendError)(text) from None
    except HTTPError as error:
        raise BackendError(f"no answer: {' '.join(str(error).split())[:200]}") from None


def _message(error: Any) -> str:
    """Return what the server says, in one line."""
    try:
        text = json.loads(error.body)["message"]
    except (ValueError, TypeError, KeyError):
        text = error.reason or "no message"
    return " ".join(str(text).split())[:200]


def _gone_is_fine(request: Callable[..., Any], target: str) -> None:
    try:
        call(request, target)
    except NotFoundError:  # another reconcile was quicker
        return


def pages(request: Callable[..., Any], name: str, **arguments: Any) -> Iterator[Any]:
    """Yield what a list call returns, page by page."""
    token = ""
    while True:
        page = call(request, page_token=token, page_size=100, **arguments)
        yield from getattr(page, name) or ()
        token = page.next_page_token or ""
        if not token:
            return


def equals(key: str, value: str) -> str:
    predicate = {"operation": "EQUALS", "key": key, "string_value": value}
    return json.dumps({"predicates": [predicate]})
