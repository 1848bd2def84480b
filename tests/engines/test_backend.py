"""The committed pipeline through the back end for one machine: what steps are given, in which order, and what is kept.

No container is started: `Pods` stands for the steps, and tells about outputs as they do. tests/containers has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftline.engines.backend import LOG, OUTPUT_FILE, Backend, Pod
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.executor_input import read_executor_input, unreplaced
from graftline.tasks.parameters import COMPONENTS

CACHED = ["fetch", "validate", "pretrain", "finetune"]
GIVEN = {"revision": "0" * 40, "data_digest": "1" * 64}


@pytest.fixture
def spec() -> dict[str, Any]:
    documents = list(yaml.load_all((ROOT / "pipelines/compiled/mnist.yaml").read_text(), Loader=yaml.CSafeLoader))
    return {name: documents[1]["spec"][name] for name in ("pipelineSpec", "platformSpec")}


class Pods:
    """Steps that make an output each and tell about it, or end as they are told to."""

    def __init__(self, **ends: list[int | None]) -> None:
        self.started: list[Pod] = []
        self._ends = ends
        self.at: dict[str, Callable[[], None]] = {}

    def start(self, pod: Pod) -> int | None:
        self.started.append(pod)
        self.at.get(pod.step, lambda: None)()
        ends = self._ends.get(pod.step)
        if (code := ends.pop(0) if ends else 0) != 0:
            return code
        given = self.given(pod.step)
        places = {place: path for path, place in pod.outputs.items()}
        told: dict[str, Any] = {"artifacts": {}, "parameterValues": {"record": f"record of {pod.step}"}}
        for name, listed in given["outputs"]["artifacts"].items():
            if name != LOG:
                place = str(read_executor_input(json.dumps(given)).outputs[name])
                (places[place.rpartition("/")[0]] / name).mkdir()
                metadata = {"record": f"record of {pod.step}", "run": pod.env["GRAFTLINE_RUN"]}
                told["artifacts"][name] = {"artifacts": [{"uri": listed["artifacts"][0]["uri"], "metadata": metadata}]}
        file = places[OUTPUT_FILE.rpartition("/")[0]] / OUTPUT_FILE.rpartition("/")[2]
        file.write_text(json.dumps(told))
        return 0

    def given(self, step: str) -> dict[str, Any]:
        """Return the executor input of a step's last start."""
        pod = next(pod for pod in reversed(self.started) if pod.step == step)
        found: dict[str, Any] = json.loads(pod.command[pod.command.index("--executor-input") + 1])
        return found

    @property
    def steps(self) -> list[str]:
        return [pod.step for pod in self.started]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["pipelineSpec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


def container(spec: dict[str, Any], step: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["pipelineSpec"]["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    return found


def test_the_steps_run_in_the_order_of_the_graph_and_all_is_replaced(spec: dict[str, Any], tmp_path: Path) -> None:
    pods = Pods()
    backend = Backend(spec, tmp_path, pods.start)
    assert backend.run(GIVEN) == "COMPLETE"
    assert pods.steps == ["claim", "fetch", *COMPONENTS, "conclude"]
    assert {pod.env["GRAFTLINE_RUN"] for pod in pods.started} == {backend.id}
    assert {pod.labels["graftline.dev/run"] for pod in pods.started} == {backend.id}
    assert all(pod.env["GRAFTLINE_POD"] == pod.name for pod in pods.started)
    for pod in pods.started:
        assert not unreplaced({"container": {"args": pod.command}})
    signed = {pod.step for pod in pods.started if pod.secrets}
    assert signed == set(COMPONENTS)


def test_a_step_is_told_where_its_inputs_lie_and_what_made_them(spec: dict[str, Any], tmp_path: Path) -> None:
    pods = Pods()
    backend = Backend(spec, tmp_path, pods.start)
    backend.run(GIVEN)
    given = pods.given("finetune")
    (trunk,) = given["inputs"]["artifacts"]["trunk"]["artifacts"]
    assert trunk["uri"].startswith(f"minio://mlpipeline/v2/artifacts/retrain-mnist/{backend.id}/pretrain/")
    assert trunk["type"]["schemaTitle"] == "system.Model"
    assert trunk["metadata"] == {"record": "record of pretrain", "run": backend.id}
    assert given["inputs"]["parameterValues"]["cache_trunk"] == "record of pretrain"
    finetune = next(pod for pod in pods.started if pod.step == "finetune")
    assert str(read_executor_input(json.dumps(given)).inputs["trunk"].path) in finetune.inputs.values()
    assert LOG in given["outputs"]["artifacts"], "the launcher's own, which a step must not mistake for its output"


def test_only_what_the_launcher_replaces_is_replaced(spec: dict[str, Any], tmp_path: Path) -> None:
    """K1, K3: the rest reaches the program as it stands."""
    stays = ["{{$.outputs.output_file}}", "{{$.pipeline_job_uuid}}", "{{$.pipeline_job_name}}", "[[ScheduledTime]]"]
    goes = [
        "{{$.inputs.parameters['params']}}",
        "{{$.inputs.artifacts['dataset'].path}}",
        "{{$.inputs.artifacts['dataset'].uri}}",
        "{{$.outputs.artifacts['trunk'].path}}",
        "{{$.outputs.parameters['record'].output_file}}",
    ]
    container(spec, "pretrain")["args"] += [*stays, *goes]
    pods = Pods()
    Backend(spec, tmp_path, pods.start).run(GIVEN | {"pretrain_params": "{{$}}"})
    command = next(pod for pod in pods.started if pod.step == "pretrain").command
    assert command[-9:-5] == stays
    assert command[-5] == "{{$}}", "a value is not looked through again"
    assert command[-4].startswith("/minio/") and command[-3].startswith("minio://")
    assert command[-2].endswith("/trunk") and command[-1] == "/tmp/kfp/outputs/record"


def test_the_runs_times_are_known_to_constants_only(spec: dict[str, Any], tmp_path: Path) -> None:
    """K2."""
    inputs = tasks(spec)["claim"]["inputs"]["parameters"]
    inputs["reason"] = {"runtimeValue": {"constant": "{{$.pipeline_job_schedule_time_utc}}"}}
    inputs["version"] = {"runtimeValue": {"constant": "at {{$.pipeline_job_schedule_time_utc}}"}}
    inputs["run_key"] = {"runtimeValue": {"constant": "[[ScheduledTime.2006]]"}}
    pods = Pods()
    Backend(spec, tmp_path, pods.start).run(GIVEN | {"task": "{{$.pipeline_job_uuid}}"})
    values = pods.given("claim")["inputs"]["parameterValues"]
    assert values["reason"].endswith("Z") and len(values["reason"]) == len("2026-11-28T23:45:00Z")
    assert values["version"] == "at {{$.pipeline_job_schedule_time_utc}}"
    assert values["run_key"] == "[[ScheduledTime.2006]]"
    assert values["task"] == "{{$.pipeline_job_uuid}}"


def test_after_a_failure_nothing_runs_but_the_exit_handler(spec: dict[str, Any], tmp_path: Path) -> None:
    """K4: what never ran has no state. K6: an exit code is not tried again by the back end."""
    pods = Pods(pretrain=[1])
    backend = Backend(spec, tmp_path, pods.start)
    assert backend.run(GIVEN) == "FAILED"
    assert pods.steps == ["claim", "fetch", "validate", "pretrain", "conclude"]
    assert backend.executions["pretrain"].state == "FAILED"
    assert "finetune" not in backend.executions


def test_a_lost_pod_is_made_again(spec: dict[str, Any], tmp_path: Path) -> None:
    """K8."""
    pods = Pods(pretrain=[None, None])
    assert Backend(spec, tmp_path, pods.start).run(GIVEN) == "COMPLETE"
    names = [pod.name for pod in pods.started if pod.step == "pretrain"]
    assert len(names) == 3


@pytest.mark.parametrize(
    ("end", "word"), [("", "COMPLETE"), ("failed", "FAILED"), ("cancelled", "RUNNING"), ("lost", "RUNNING")]
)
def test_the_exit_handler_is_told_little(spec: dict[str, Any], tmp_path: Path, end: str, word: str) -> None:
    """K11: RUNNING of a cancelled run and of a lost pod; never a message."""
    ends: dict[str, list[int | None]] = {"failed": [1], "cancelled": [1], "lost": [None, None, None]}
    pods = Pods(**({"finetune": ends[end]} if end else {}))
    backend = Backend(spec, tmp_path, pods.start)
    if end == "cancelled":
        pods.at["finetune"] = backend.cancelled.set
    assert backend.run(GIVEN) == word
    status = pods.given("conclude")["inputs"]["parameterValues"]["status"]
    assert (status["state"], status["pipelineTaskName"], status["error"]["message"]) == (word, "exit-handler-1", "")


def test_ctrl_c_cancels_the_run_and_runs_the_exit_handler(spec: dict[str, Any], tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    pods = Pods()
    pods.at["pretrain"] = interrupt
    backend = Backend(spec, tmp_path, pods.start)
    assert backend.run(GIVEN) == "RUNNING"
    assert backend.cancelled.is_set()
    assert pods.steps[-2:] == ["pretrain", "conclude"]


def run(spec: dict[str, Any], root: Path, **parameters: str) -> tuple[Backend, Pods]:
    pods = Pods()
    backend = Backend(spec, root, pods.start)
    assert backend.run(GIVEN | parameters) == "COMPLETE"
    return backend, pods


def cached(backend: Backend) -> list[str]:
    return [name for name, one in backend.executions.items() if one.state == "CACHED"]


def test_a_second_run_is_taken_from_the_cache_up_to_evaluate(spec: dict[str, Any], tmp_path: Path) -> None:
    """K19, of the committed pipeline: whatever the run's key, reason and commit."""
    first, _ = run(spec, tmp_path)
    second, pods = run(spec, tmp_path, run_key="another", reason='{"kind": "commit"}')
    assert cached(second) == CACHED
    (model,) = pods.given("publish")["inputs"]["artifacts"]["model"]["artifacts"]
    assert model["metadata"]["run"] == first.id, "which says where it comes from"


def test_another_head_skips_pretraining_and_other_data_nothing(spec: dict[str, Any], tmp_path: Path) -> None:
    run(spec, tmp_path)
    assert cached(run(spec, tmp_path, finetune_params="{}")[0]) == CACHED[:-1]
    assert cached(run(spec, tmp_path, data_digest="2" * 64)[0]) == []


def test_where_a_step_runs_is_no_part_of_the_caches_key(spec: dict[str, Any], tmp_path: Path) -> None:
    run(spec, tmp_path)
    elsewhere = deepcopy(spec)
    for step in CACHED:
        container(elsewhere, step)["env"].append({"name": "ELSEWHERE", "value": "1"})
        container(elsewhere, step)["resources"] = {}
    assert cached(run(elsewhere, tmp_path)[0]) == CACHED
    container(elsewhere, "pretrain")["image"] = "another"
    assert cached(run(elsewhere, tmp_path)[0]) == CACHED[:2]


def test_behind_a_step_that_is_never_cached_nothing_is(spec: dict[str, Any], tmp_path: Path) -> None:
    """K19, the finding: the key holds artifacts' ids, which are new each time."""
    tasks(spec)["fetch"]["cachingOptions"] = {}
    run(spec, tmp_path)
    assert cached(run(spec, tmp_path)[0]) == []


def test_an_artifact_that_is_gone_is_made_again(spec: dict[str, Any], tmp_path: Path) -> None:
    first, _ = run(spec, tmp_path)
    first.path(first.executions["pretrain"].artifacts["trunk"]["uri"]).rmdir()
    assert cached(run(spec, tmp_path)[0]) == CACHED[:2]


def test_what_a_run_has_no_use_for_is_forgotten(spec: dict[str, Any], tmp_path: Path) -> None:
    run(spec, tmp_path)
    second, _ = run(spec, tmp_path, finetune_params="{}")
    second.forget_others()
    kept = {path.relative_to(tmp_path / "artifacts").parts[2] for path in (tmp_path / "artifacts").glob("*/*/*/*")}
    assert kept == {"fetch", *COMPONENTS}
    assert len(list((tmp_path / "artifacts").glob("*/*/finetune/*"))) == 1
    assert cached(run(spec, tmp_path, finetune_params="{}")[0]) == CACHED
    assert cached(run(spec, tmp_path)[0]) == CACHED[:-1]


def test_an_output_that_was_never_made_fails_the_step_that_needs_it(spec: dict[str, Any], tmp_path: Path) -> None:
    started = []

    def start(pod: Pod) -> int:
        started.append(pod.step)
        return 0

    backend = Backend(spec, tmp_path, start)
    assert backend.run(GIVEN) == "FAILED"
    assert started == ["claim", "fetch", "conclude"]
    assert backend.executions["validate"].state == "FAILED"


def test_parameters_are_checked(spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown: epochs"):
        Backend(spec, tmp_path, Pods().start).run(GIVEN | {"epochs": "1"})
    with pytest.raises(InputError, match="missing: data_digest, revision"):
        Backend(spec, tmp_path, Pods().start).run({})
