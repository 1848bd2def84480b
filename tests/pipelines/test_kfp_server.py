"""The stand-in answers as a real Kubeflow did: recordings/ holds what that one said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import kfp_server_api
import pytest
from kfp_server import RECORDINGS, TERMINATION, InProcess, KfpBackend, recorded_error, recorded_run
from kfp_server_api import models
from kfp_server_api.exceptions import ApiException

Shape = list[tuple[Any, ...]]
STEPS = ("fetch", "validate", "pretrain", "finetune", "evaluate", "publish")


class Kubeflow:
    """A server with a run, the client's view of both, and a clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 29, tzinfo=UTC)
        self.backend = KfpBackend(clock=lambda: self.now)
        self.backend.experiments["e"] = models.V2beta1Experiment(experiment_id="e", created_at=self.now)
        spec = {"root": {"inputDefinitions": {"parameters": {}}}}
        self.backend.versions["v"] = models.V2beta1PipelineVersion(pipeline_id="p", pipeline_spec=spec)
        client = kfp_server_api.ApiClient()
        client.rest_client = InProcess(self.backend)
        self.runs = kfp_server_api.RunServiceApi(client)
        self.client = client

    def start(self, name: str = "mnist-1") -> str:
        body = models.V2beta1Run(
            display_name=name,
            experiment_id="e",
            pipeline_version_reference=models.V2beta1PipelineVersionReference(pipeline_id="p", pipeline_version_id="v"),
        )
        return str(self.runs.run_service_create_run(body).run_id)

    def history(self, run_id: str) -> list[str]:
        return [each.state for each in self.runs.run_service_get_run(run_id).state_history]

    def found(self, **predicate: Any) -> list[str]:
        page = self.runs.run_service_list_runs(filter=json.dumps({"predicates": [predicate]}))
        return [run.display_name for run in page.runs or ()]


@pytest.fixture
def kubeflow() -> Kubeflow:
    return Kubeflow()


def shape(run: Any) -> dict[str, Shape]:
    """Return what the tasks of the steps look like, by step: names, states, and how many nodes are under each.

    An executor belongs to the step that began when it did: no task says under which other one it is.
    """
    tasks = [task for task in run.run_details.task_details if task.display_name]
    begun = {task.start_time: task.display_name for task in tasks if task.display_name in STEPS}
    found: dict[str, Shape] = {}
    for task in tasks:
        name = task.display_name
        step = begun.get(task.start_time, "") if name.startswith("executor") else name.split("-driver")[0]
        step = step.removesuffix("(0)")
        if step in STEPS and task.state != "SKIPPED":
            history = [str(each.state) for each in task.state_history]  # a pod's RUNNING may be too short to be seen
            found.setdefault(step, []).append((name, task.state, "" if name.endswith("(0)") else history))
    return {step: sorted(found[step], key=str) for step in STEPS if step in found}


@pytest.mark.parametrize(
    ("recording", "steps"),
    [
        ("runs-1-succeeded", ["SUCCEEDED"] * 6),
        ("runs-2-gate-refused", ["SUCCEEDED"] * 5 + ["FAILED"]),
        ("runs-7-bad-data", ["SUCCEEDED", "FAILED", None, None, None, None]),
        ("runs-7-wrong-secret", ["FAILED", None, None, None, None, None]),
        ("runs-9-cached-succeeded", ["CACHED"] * 3 + ["SUCCEEDED"] * 3),
    ],
)
def test_steps_are_shown_as_they_were_recorded(kubeflow: Kubeflow, recording: str, steps: list[Any]) -> None:
    """K4, K19: a step that never ran has no state; one from the cache is SUCCEEDED above a SKIPPED executor."""
    run_id = kubeflow.start()
    kubeflow.backend.set_steps(run_id, dict(zip(STEPS, steps, strict=True)))
    assert shape(kubeflow.runs.run_service_get_run(run_id)) == shape(recorded_run(recording))
    assert all(task.error is None for task in recorded_run(recording).run_details.task_details)


@pytest.mark.parametrize(
    "recording", sorted(path.name.removesuffix("-run.json") for path in RECORDINGS.glob("runs-*-run.json"))
)
def test_a_recorded_run_is_what_the_client_reads(kubeflow: Kubeflow, recording: str) -> None:
    run = recorded_run(recording)
    kubeflow.backend.runs[run.run_id] = run
    assert kubeflow.runs.run_service_get_run(run.run_id) == run


def test_a_run_that_is_cancelled_ends_as_failed(kubeflow: Kubeflow) -> None:
    """K12: CANCELING is the one trace that a cancel leaves in the API."""
    run_id = kubeflow.start()
    kubeflow.backend.set_state(run_id, "RUNNING")
    assert kubeflow.runs.run_service_terminate_run(run_id) == {}
    assert kubeflow.runs.run_service_get_run(run_id).finished_at.year == 1970
    kubeflow.now += TERMINATION
    assert kubeflow.history(run_id) == [each.state for each in recorded_run("runs-4-cancelled").state_history]
    kubeflow.runs.run_service_retry_run(run_id)
    assert kubeflow.runs.run_service_get_run(run_id).state == "RUNNING"


def test_a_run_that_takes_too_long_goes_from_running_to_failed(kubeflow: Kubeflow) -> None:
    """K12"""
    run_id = kubeflow.start()
    kubeflow.backend.set_state(run_id, "RUNNING")
    kubeflow.backend.end_later(run_id, "FAILED", timedelta(hours=72))
    kubeflow.now += timedelta(hours=73)
    assert kubeflow.history(run_id) == [each.state for each in recorded_run("runs-5-deadline").state_history]


def test_a_ghost_never_ends_and_only_delete_helps(kubeflow: Kubeflow) -> None:
    """K21: schedules-ghost-run.json"""
    run_id = kubeflow.start()
    kubeflow.backend.set_state(run_id, "RUNNING")
    kubeflow.backend.lose(run_id)
    with pytest.raises(ApiException, match="500"):
        kubeflow.runs.run_service_terminate_run(run_id)
    kubeflow.runs.run_service_archive_run(run_id)
    kubeflow.now += timedelta(days=9)
    run = kubeflow.runs.run_service_get_run(run_id)
    assert (run.state, run.storage_state, run.finished_at.year) == ("CANCELING", "ARCHIVED", 1970)
    kubeflow.runs.run_service_delete_run(run_id)
    with pytest.raises(ApiException) as missing:
        kubeflow.runs.run_service_get_run(run_id)
    said = json.loads(missing.value.body)
    zero = "00000000-0000-0000-0000-000000000000"
    assert (missing.value.status, said["message"]) == (404, recorded_error("run missing").replace(zero, run_id))


def test_filters_that_work_and_one_that_does_not(kubeflow: Kubeflow) -> None:
    """K26; and K15: nothing keeps two runs from having one name."""
    assert kubeflow.runs.run_service_list_runs().to_dict()["runs"] is None
    first, _, third = (kubeflow.start(name) for name in ("mnist-1", "mnist-1", "words-2"))
    kubeflow.backend.set_state(third, "RUNNING")
    assert kubeflow.found(key="name", operation="EQUALS", string_value="mnist-1") == ["mnist-1"] * 2
    both = {"values": ["RUNNING", "CANCELING"]}
    assert kubeflow.found(key="state", operation="IN", string_values=both) == ["words-2"]
    assert kubeflow.found(key="display_name", operation="IS_SUBSTRING", string_value="rds") == ["words-2"]
    at = "2026-11-29T00:00:00Z"
    assert kubeflow.found(key="created_at", operation="GREATER_THAN", timestamp_value=at) == []
    with pytest.raises(ApiException) as refused:
        kubeflow.found(key="pipeline_version_id", operation="EQUALS", string_value=first)
    said = json.loads(refused.value.body)
    assert (refused.value.status, said["code"], said["message"]) == (400, 3, recorded_error("filter field"))
