"""`graftline submit` against an HTTP server that answers as a real Kubeflow did; kfp_server.py says how far."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from kfp_server import RECORDINGS, Fault, KfpBackend, Request, _read, hearing, recorded_error, recorded_run, serve
from kfp_server_api import models
from kubernetes_server import Backend, write_kubeconfig
from kubernetes_server import serve as serve_kubernetes
from typer.testing import CliRunner

from graftline import runs, settings, task_data
from graftline.cli import submit as command
from graftline.cli.app import app
from graftline.engines.local import task_digest
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.pipelines import submit
from graftline.pipelines.compile import CompiledPipeline, compiled
from graftline.pipelines.reconcile import claims
from graftline.runs import Attempt, End, Start
from graftline.store import Store
from graftline.store.opening import open_store

TASK = "mnist"
HEAD, CHANGED = "c" * 40, "d" * 40
STEPS = ("fetch", "validate", "pretrain", "finetune", "evaluate", "publish")
REFUSED = "publish: mnist: nothing was released; min_accuracy is 0.928799, must be >= 1: off by 0.0712009"


@dataclass
class Server:
    """The server, and how the command is run against it."""

    backend: KfpBackend
    url: str
    store_url: str

    def submit(self, *arguments: str) -> Result:
        given = ["submit", TASK, "--endpoint", self.url, "--every", "0.01", "--store", self.store_url, *arguments]
        return CliRunner().invoke(app, given)

    @property
    def run(self) -> Any:
        (run,) = self.backend.runs.values()
        return run

    @property
    def store(self) -> Store:
        return open_store(self.store_url)

    def key(self, run_id: str) -> str:
        return str(self.backend.runs[run_id].runtime_config.parameters["run_key"])

    def start(self) -> str:
        """Submit the run, and return its id."""
        assert self.submit().exit_code == 0
        return str(self.run.run_id)

    def says(self, run_id: str, step: str, code: int, line: str = "") -> None:
        """Let a step leave its word, as its runner does."""
        runs.add_attempt(self.store, Attempt(run_id, step, code, line, "", "2026-11-28T23:45:18Z"))

    def closes(self, run_id: str, state: runs.State, step: str = "", line: str = "") -> None:
        """Let a run's end be in the store, as conclude writes it."""
        runs.conclude(self.store, End(Start(run_id, self.key(run_id), TASK), state, step, line))

    def later(self, act: Callable[[str], None], runs: int = 1) -> threading.Thread:
        """Do something with the last run once there are so many, in the background."""

        def wait() -> None:
            wait_for(lambda: len(self.backend.runs) >= runs)
            act(next(reversed(self.backend.runs)))

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once it holds, and after half a minute in any case: a command that fails submits nothing."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)


@cache
def _compiled(task: str, profiles: tuple[tuple[str, str], ...], overrides: str) -> CompiledPipeline:
    return compiled(task, profiles=dict(profiles), overrides=json.loads(overrides))


def once_each(
    task: str, *, profiles: dict[str, str] | None = None, overrides: dict[str, Any] | None = None
) -> CompiledPipeline:
    """Compile each pipeline once for all tests: that takes a second."""
    return _compiled(task, tuple(sorted((profiles or {}).items())), json.dumps(overrides or {}))


@pytest.fixture(scope="module")
def pipeline() -> CompiledPipeline:
    return compiled(TASK)


@pytest.fixture
def server(pipeline: CompiledPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A multi-user server without anything on it; the checkout stands at HEAD with nothing changed."""
    monkeypatch.setattr(command, "committed_revision", lambda task: HEAD)
    monkeypatch.setattr(command, "data_revision", lambda task, root: CHANGED)
    monkeypatch.setattr(command, "compiled", once_each)
    monkeypatch.delenv("GRAFTLINE_KFP_TOKEN", raising=False)
    backend = KfpBackend(namespace="graftline")
    with serve(backend) as url:
        yield Server(backend, url, str(tmp_path / "store"))


def test_a_run_is_made_of_a_version_that_it_names(server: Server, pipeline: CompiledPipeline) -> None:
    done = server.submit()
    assert done.exit_code == 0, done.output
    (uploaded,) = server.backend.versions.values()
    assert (uploaded.name, uploaded.pipeline_spec["pipeline_spec"]) == (pipeline.version, pipeline.spec["pipelineSpec"])
    assert uploaded.pipeline_spec["platform_spec"] == pipeline.spec["platformSpec"]
    run = server.run
    assert run.pipeline_version_reference.pipeline_version_id == uploaded.pipeline_version_id
    assert run.service_account == "graftline-run"
    given = run.runtime_config.parameters
    assert given["revision"] == CHANGED, "what stays the same as long as the data does"
    assert given["data_digest"] == task_digest(TASK)
    assert {"kind": "person", "commit": HEAD}.items() <= json.loads(given["reason"]).items()
    assert run.display_name == f"{TASK}-{given['run_key'][:16]}"
    assert run.display_name in done.output
    assert f"{server.url}/#/runs/details/{run.run_id}" in done.output


def test_the_same_run_is_not_started_twice_unless_asked(server: Server) -> None:
    server.submit()
    again = server.submit()
    assert again.exit_code == 0
    assert "was submitted before: pending; --again starts another" in again.output
    assert server.run.run_id in again.output
    assert server.submit("--again").exit_code == 0
    assert len(server.backend.runs) == 2
    assert len(server.backend.versions) == len(server.backend.pipelines) == len(server.backend.experiments) == 1
    keys = {run.runtime_config.parameters["run_key"] for run in server.backend.runs.values()}
    assert len(keys) == 2, "another run has another key, name and record"


def test_parameters_of_the_run_and_a_profile(server: Server, pipeline: CompiledPipeline) -> None:
    server.submit()
    params = (ROOT / f"data/{TASK}/params.yaml").read_bytes()
    done = server.submit("--set", "finetune.epochs=3", "--profile", "cpu", "--store", "s3://other/place")
    assert done.exit_code == 0, done.output
    assert (ROOT / f"data/{TASK}/params.yaml").read_bytes() == params
    first, second = server.backend.runs.values()
    given = second.runtime_config.parameters
    assert json.loads(given["finetune_params"])["finetune"]["epochs"] == 3
    assert given["store"] == "s3://other/place"
    assert given["pretrain_params"] == first.runtime_config.parameters["pretrain_params"]
    assert len(server.backend.versions) == 2, "another place is another version"
    assert given["version"] != pipeline.version


def states(output: str) -> list[tuple[str, str]]:
    """Return what was said of each step and of the end."""
    lines = [line.split(maxsplit=1) for line in output.splitlines() if line[:1].strip()]
    return [(line[0], line[1]) for line in lines if line[0] in (*STEPS, "claim", "conclude", "ended")]


def test_watching_shows_each_step_and_ends_with_the_run(server: Server) -> None:
    """K19: a step from the cache says so; K4: nothing is said of what is no step."""

    def act(run_id: str) -> None:
        server.backend.set_steps(run_id, {"claim": "SUCCEEDED", "fetch": "CACHED", "validate": "RUNNING"})
        server.backend.set_state(run_id, "RUNNING")
        looks: list[Request] = []
        server.backend.fault = lambda request: looks.append(request)
        wait_for(lambda: len(looks) > 1)
        done = dict.fromkeys(("pretrain", "publish", "conclude"), "SUCCEEDED")
        server.backend.set_steps(run_id, {"claim": "SUCCEEDED", "fetch": "CACHED", "validate": "SUCCEEDED", **done})
        server.says(run_id, "publish", 0)
        server.closes(run_id, "SUCCEEDED")
        server.backend.set_state(run_id, "SUCCEEDED")

    thread = server.later(act)
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == 0, done.output
    assert states(done.output) == [
        ("claim", "succeeded"),
        ("fetch", "from the cache"),
        ("validate", "running"),
        ("validate", "succeeded"),
        ("pretrain", "succeeded"),
        ("publish", "succeeded"),
        ("conclude", "succeeded"),
        ("ended", "succeeded"),
    ]


@pytest.mark.parametrize(
    ("step", "code", "line", "state"),
    [
        ("publish", 3, REFUSED, "REFUSED"),
        ("fetch", 2, "fetch: s3://bucket: no such bucket; create it", "FAILED"),
        ("pretrain", 75, "pretrain: stopped; its checkpoint is kept", "FAILED"),
        ("pretrain", 1, "pretrain: no space left", "FAILED"),
    ],
)
@pytest.mark.parametrize("closed", [True, False])
def test_a_failed_step_says_why_and_the_command_ends_with_its_code(
    server: Server, step: str, code: int, line: str, state: runs.State, closed: bool
) -> None:
    """K4: in the API every end is 1, without a reason; what comes after the step did not run."""

    def act(run_id: str) -> None:
        after = STEPS[STEPS.index(step) + 1 :]
        before = dict.fromkeys(STEPS[: STEPS.index(step)], "SUCCEEDED")
        server.backend.set_steps(run_id, {**before, step: "FAILED", **dict.fromkeys(after)})
        server.says(run_id, step, code, line)
        if closed:
            server.closes(run_id, state, step, line)
        server.backend.set_state(run_id, "RUNNING")
        server.backend.set_state(run_id, "FAILED")

    thread = server.later(act)
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == code, done.output
    assert done.output.count(f"{line} (exit code {code})") == 1
    assert ("ended", state.lower()) in states(done.output)
    for other in STEPS[STEPS.index(step) + 1 :]:
        assert (other, "did not run") in states(done.output)


@pytest.mark.parametrize(
    ("recording", "state"),
    [
        ("runs-1-succeeded", "succeeded"),
        ("runs-1-second-of-a-key", "failed"),
        ("runs-2-gate-refused", "failed"),
        ("runs-4-cancelled", "canceled"),
        ("runs-7-bad-data", "failed"),
        ("runs-9-cached-succeeded", "succeeded"),
    ],
)
def test_a_recorded_run_is_shown_as_it_went(server: Server, recording: str, state: str) -> None:
    """K4, K12, K19: by what the API says alone, since the store knows nothing of the run."""
    server.submit()
    run = recorded_run(recording)
    run.display_name, run.run_id = server.run.display_name, server.run.run_id
    run.runtime_config, run.experiment_id = server.run.runtime_config, server.run.experiment_id
    server.backend.runs[run.run_id] = run
    done = server.submit("--watch")
    shown = dict(states(done.output))
    assert shown["ended"] == state
    never = [step for step in STEPS if shown.get(step) == "did not run"]
    cached = [step for step in STEPS if shown.get(step) == "from the cache"]
    expected = {
        "runs-4-cancelled": ["finetune", "evaluate", "publish"],
        "runs-7-bad-data": ["pretrain", "finetune", "evaluate", "publish"],
        "runs-1-second-of-a-key": ["validate", "pretrain", "finetune", "evaluate", "publish"],
    }
    assert never == expected.get(recording, [])
    assert cached == (["fetch", "validate", "pretrain"] if recording == "runs-9-cached-succeeded" else [])


def test_the_log_says_why_where_the_store_cannot_be_read(server: Server) -> None:
    """K5: runs-10-log-of-a-refusal.txt, at the node under the failed task named executor."""

    def act(run_id: str) -> None:
        steps = dict.fromkeys(STEPS[:-1], "SUCCEEDED") | {"publish": "FAILED"}
        pod = server.backend.set_steps(run_id, steps)["publish"]
        server.backend.logs[run_id, pod] = (RECORDINGS / "runs-10-log-of-a-refusal.txt").read_text()
        server.backend.set_state(run_id, "RUNNING")
        server.backend.set_state(run_id, "FAILED")

    thread = server.later(act)
    done = server.submit("--watch", "--store", "gs://bucket/of/another/kind")
    thread.join()
    assert done.exit_code == 3, done.output
    assert f"{REFUSED} (exit code 3)" in done.output
    assert ("ended", "refused") in states(done.output)
    assert "what steps say is read from their logs" in done.output


def test_a_step_that_did_its_work_may_have_failed_after_it(server: Server) -> None:
    """Its word is 0, and Kubeflow's launcher could not store what it made: the log has the reason."""

    def act(run_id: str) -> None:
        pod = server.backend.set_steps(run_id, {"fetch": "SUCCEEDED", "validate": "RUNNING"})["validate"]
        server.says(run_id, "validate", 0)
        log = "F1128 23:45:18.872710      16 main.go:59] failed to upload: no space"
        server.backend.logs[run_id, pod] = log
        assert server.backend.set_steps(run_id, {"fetch": "SUCCEEDED", "validate": "FAILED"})["validate"] == pod
        server.backend.set_state(run_id, "FAILED")

    thread = server.later(act)
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == 1
    assert "validate: failed to upload: no space (exit code 1)" in done.output
    assert states(done.output)[-1] == ("ended", "failed")


def test_which_pod_ran_a_step_and_what_its_log_holds() -> None:
    """K5: the last try of several; a step that was killed left nothing but the launcher's own line."""
    assert submit.pods_of(recorded_run("runs-2-gate-refused"), "publish") == ["retrain-mnist-sbrtz-3928118856"]
    assert len(submit.pods_of(recorded_run("runs-4-cancelled"), "pretrain")) == 2
    assert submit.pods_of(recorded_run("runs-4-cancelled"), "publish") == []
    klog = "1128 23:45:11.812028      16 main.go:67]"
    killed = f"I{klog} Setting log level to: '1'\nF{klog} failed: signal: killed"
    assert submit.said_in("pretrain", killed) == (1, "pretrain: failed: signal: killed")


@pytest.mark.parametrize(("state", "code"), [("CANCELED", 75), ("OVERDUE", 75), ("LOST", 1)])
def test_an_end_that_only_the_store_knows(server: Server, state: runs.State, code: int) -> None:
    """K12, K21: no word of Kubeflow's API says so."""

    def act(run_id: str) -> None:
        server.backend.set_steps(run_id, {"fetch": "SUCCEEDED", "pretrain": "FAILED", "finetune": None})
        if state != "LOST":
            server.says(run_id, "pretrain", 75, "pretrain: stopped; its checkpoint is kept")
            server.closes(run_id, state, "pretrain", "pretrain: stopped; its checkpoint is kept")
        else:
            server.closes(run_id, state)
        server.backend.set_state(run_id, "FAILED")

    thread = server.later(act)
    done = server.submit("--watch")
    thread.join()
    assert (done.exit_code, states(done.output)[-1]) == (code, ("ended", state.lower()))


def test_a_run_that_is_at_work_again_is_not_shown_by_its_earlier_end(server: Server) -> None:
    """K14: retried in Kubeflow's page; no exit handler runs, and reconcile has not closed it yet."""
    server.submit()
    run_id = server.run.run_id
    server.closes(run_id, "REFUSED", "publish", REFUSED)
    runs.begin_again(server.store, run_id)
    server.backend.set_steps(run_id, dict.fromkeys(STEPS, "SUCCEEDED"))
    server.backend.set_state(run_id, "SUCCEEDED")
    done = server.submit("--watch")
    assert done.exit_code == 0
    assert "was submitted before: succeeded" in done.output


def test_a_run_that_somebody_deleted_is_told_by_the_store(server: Server) -> None:
    """K21: DELETE of a run is what helps against a ghost."""
    server.submit()
    run_id = server.run.run_id
    claims.hold(server.store, server.key(run_id), run_id)
    server.closes(run_id, "LOST")
    server.backend.runs.clear()
    done = server.submit("--watch")
    assert (done.exit_code, states(done.output)) == (1, [("ended", "lost")])
    assert "was submitted before: lost" in done.output


def test_watching_a_run_that_was_submitted_before(server: Server) -> None:
    server.submit()
    server.backend.set_state(server.run.run_id, "RUNNING")
    thread = server.later(lambda run_id: server.backend.set_state(run_id, "SUCCEEDED"))
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == 0
    assert len(server.backend.runs) == 1


def test_of_two_submits_at_once_both_follow_the_one_that_holds_the_claim(server: Server) -> None:
    """K15: two runs of one name and key; Kubeflow lists the loser first, as FAILED."""

    def another_is_quicker(request: Request) -> None:
        if request.path == "/runs" and request.changes and not server.backend.runs:
            winner = server.backend.add_run(_read(request.body, models.V2beta1Run)).run_id
            assert claims.hold(server.store, server.key(winner), winner) is None

    def act(loser: str) -> None:
        winner = next(iter(server.backend.runs))
        server.says(loser, "claim", 3, f"claim: {claims.hold(server.store, server.key(winner), loser)}; this one stops")
        server.backend.set_steps(loser, {"claim": "FAILED", **dict.fromkeys(STEPS)})
        server.backend.set_state(loser, "FAILED")
        server.backend.set_steps(winner, {"claim": "SUCCEEDED", **dict.fromkeys(STEPS, "SUCCEEDED")})
        server.closes(winner, "SUCCEEDED")
        server.backend.set_state(winner, "SUCCEEDED")

    server.backend.fault = another_is_quicker
    thread = server.later(act, runs=2)
    done = server.submit("--watch")
    thread.join()
    winner, loser = server.backend.runs
    assert done.exit_code == 0, done.output
    assert f"runs/details/{loser}" in done.output
    assert (
        f"claim: the run {winner} does the work of key {server.key(winner)}; this one stops (exit code 3)"
        in done.output
    )
    assert f"run       {winner} does this work; following it" in done.output
    assert states(done.output)[-1] == ("ended", "succeeded")

    server.backend.runs = {loser: server.backend.runs[loser], winner: server.backend.runs[winner]}
    again = server.submit()
    assert "was submitted before: succeeded" in again.output
    assert f"runs/details/{winner}" in again.output


def test_of_two_uploads_at_once_the_slower_goes_on_with_what_is_there(server: Server) -> None:
    """K16: 409 Conflict"""
    uploads: list[Request] = []

    def another_is_quicker(request: Request) -> Fault | None:
        if request.path == "/pipelines/upload_version" and not uploads:
            uploads.append(request)
            return Fault("act-then-fail", 409)
        return None

    server.backend.fault = another_is_quicker
    done = server.submit()
    assert (done.exit_code, len(server.backend.versions), len(server.backend.runs)) == (0, 1, 1), done.output


def test_a_pod_that_does_not_start_is_explained(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K10, K41: Kubeflow says RUNNING until the deadline; pod, Workflow and Workload say why."""
    kubernetes = Backend()

    def put(version: str, kind: str, thing: dict[str, Any]) -> None:
        thing["metadata"]["namespace"] = "graftline"
        kubernetes.put({"apiVersion": version, "kind": kind, **thing})

    def act(run_id: str) -> None:
        labels = {"pipeline/runid": run_id}
        reason = {"reason": "CreateContainerConfigError", "message": 'secret "graftline-store" not found'}
        container = {
            "name": "main",
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": reason},
        }
        status = {"phase": "Pending", "containerStatuses": [container]}
        put("v1", "Pod", {"metadata": {"name": "pod-1", "labels": labels}, "status": status})
        node = {
            "type": "Pod",
            "phase": "Pending",
            "displayName": "validate-driver(0)",
            "message": "exceeded quota: runs",
        }
        put(
            "argoproj.io/v1alpha1",
            "Workflow",
            {"metadata": {"name": "w", "labels": labels}, "status": {"nodes": {"n": node}}},
        )
        workload = json.loads((RECORDINGS / "trainjobs-5-workload-pending.json").read_text())
        workload["spec"]["podSets"][0]["template"]["metadata"]["labels"]["graftline.dev/run"] = run_id
        kubernetes.put(workload)
        server.backend.set_steps(run_id, {"fetch": "PENDING"})
        server.backend.set_state(run_id, "RUNNING")
        seen = len(kubernetes.requests)
        wait_for(lambda: len(kubernetes.requests) > seen + 8)  # more than two whole looks
        server.backend.set_state(run_id, "FAILED")

    monkeypatch.setattr(submit, "WAITS_SECONDS", 0.0)
    thread = server.later(act)
    with serve_kubernetes(kubernetes) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        done = server.submit("--watch")
    thread.join()
    lines = [line.strip() for line in done.output.splitlines() if "waits: " in line]
    assert lines[-1] == (  # a look in between may have seen only a part
        "waits: validate-driver(0): exceeded quota: runs; "
        "waits in the queue: couldn't assign flavors to pod set node: insufficient unused quota for "
        "ephemeral-storage in flavor cpu, 8Gi more needed; "
        'pod-1: CreateContainerConfigError: secret "graftline-store" not found'
    )


def test_who_may_not_look_is_told_where_to_look(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K10"""
    kubernetes = Backend(fault=lambda request: 403)

    def act(run_id: str) -> None:
        server.backend.set_steps(run_id, {"fetch": "PENDING"})
        server.backend.set_state(run_id, "RUNNING")
        seen = len(kubernetes.requests)
        wait_for(lambda: len(kubernetes.requests) > seen + 8)  # more than two whole looks
        server.backend.set_state(run_id, "FAILED")

    monkeypatch.setattr(submit, "WAITS_SECONDS", 0.0)
    thread = server.later(act)
    with serve_kubernetes(kubernetes) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        done = server.submit("--watch")
    thread.join()
    hint = f"kubectl -n graftline describe pods -l pipeline/runid={server.run.run_id}"
    assert done.output.count(f"waits: Kubeflow does not say for what; see {hint}") == 1


def test_a_step_that_runs_for_long_waits_for_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a person without kubectl told to look for it."""

    def act(run_id: str) -> None:
        server.backend.set_steps(run_id, {"fetch": "SUCCEEDED", "pretrain": "RUNNING"})
        server.backend.set_state(run_id, "RUNNING")
        time.sleep(0.3)
        server.backend.set_state(run_id, "SUCCEEDED")

    monkeypatch.setattr(submit, "WAITS_SECONDS", 0.0)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/none")
    server.backend.set_steps(server.start(), {"fetch": "RUNNING"})
    thread = server.later(act)
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == 0
    assert "waits" not in done.output


def test_a_ghost_is_followed_until_reconcile_has_closed_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """K21: for Kubeflow's API it runs for ever."""

    def act(run_id: str) -> None:
        server.backend.set_state(run_id, "RUNNING")
        server.backend.lose(run_id)
        time.sleep(0.2)
        server.closes(run_id, "LOST")

    monkeypatch.setattr(submit, "WAITS_SECONDS", 0.0)
    thread = server.later(act)
    done = server.submit("--watch")
    thread.join()
    assert (done.exit_code, states(done.output)[-1]) == (1, ("ended", "lost"))


def test_looks_that_fail_do_not_end_the_watch(server: Server) -> None:
    looks = iter(range(1000))

    def flaky(request: Request) -> Fault | None:
        look = request.method == "GET" and re.fullmatch("/runs/[^/]+", request.path)
        return Fault("refuse", 503) if look and next(looks) % 2 == 0 else None

    server.backend.fault = flaky
    thread = server.later(lambda run_id: server.backend.set_state(run_id, "SUCCEEDED"))
    assert server.submit("--watch").exit_code == 0
    thread.join()


@pytest.mark.parametrize("path", ["/experiments", "/pipelines", "/pipelines/upload_version", "/runs"])
def test_an_answer_that_was_lost_is_settled_at_once_or_by_the_same_command(server: Server, path: str) -> None:
    lost: list[str] = []

    def once(request: Request) -> Fault | None:
        if request.changes and request.path == path and not lost:
            lost.append(path)
            return Fault("act-then-drop")
        return None

    server.backend.fault = once
    first = server.submit()
    assert (path == "/runs") == isinstance(first.exception, GraftlineError)
    assert not isinstance(first.exception, InputError)
    assert server.submit().exit_code == 0
    backend = server.backend
    assert [len(each) for each in (backend.experiments, backend.pipelines, backend.versions, backend.runs)] == [1] * 4


@pytest.mark.parametrize(
    ("version", "refused"), [("2.16.1", True), ("2.17.0", False), ("2.5", True), ("unknown", False)]
)
def test_an_older_kubeflow_is_refused_in_one_line(server: Server, version: str, refused: bool) -> None:
    """Before 2.17 the platform spec is dropped without a word."""
    server.backend.version = version
    done = server.submit()
    assert isinstance(done.exception, InputError) == refused
    if refused:
        assert f"Kubeflow Pipelines: version {version}; expected 2.17 or later; " in str(done.exception)
        assert not server.backend.log


@pytest.mark.parametrize("token", ["", "a-wrong-token"])
def test_a_token_that_is_missing_or_wrong_is_the_callers_to_mend(
    server: Server, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K27: 401; exit code 2, and what to do."""
    server.backend.token = "the-right-one"
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", token)
    done = server.submit()
    assert isinstance(done.exception, InputError)
    assert "Kubeflow Pipelines: 401 " in str(done.exception)
    assert "set $GRAFTLINE_KFP_TOKEN to a fresh token" in str(done.exception)
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "the-right-one")
    assert server.submit().exit_code == 0


def test_the_innermost_cause_of_an_error_is_shown(server: Server) -> None:
    """K27, K35: Kubeflow puts it last, behind everything that passed the error on."""
    told = recorded_error("terminate without right")
    server.backend.fault = lambda request: Fault("refuse", 403, "outer: " * 90 + told) if request.changes else None
    said = str(server.submit().exception)
    assert "403 outer: outer: " in said
    assert "SelfLink" not in said
    assert told[-120:] in said


def test_the_token_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "a-secret-token"
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", token)
    with hearing() as (url, headers):
        done = CliRunner().invoke(app, ["submit", TASK, "--endpoint", url])
    assert set(headers) == {f"Bearer {token}"}
    assert isinstance(done.exception, GraftlineError)
    assert token not in done.output + str(done.exception)
    assert "401" in str(done.exception)


@pytest.mark.parametrize("multi_user", [True, False])
def test_a_multi_user_installation_is_told_the_namespace_and_a_standalone_one_is_not(
    server: Server, multi_user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = settings.load_settings().model_copy(update={"multi_user": multi_user})
    monkeypatch.setattr(command, "load_settings", lambda: told)
    assert isinstance(server.submit().exception, GraftlineError) != multi_user
    server.backend.namespace = ""
    done = server.submit()
    assert done.exit_code == 0
    assert ("was submitted before" in done.output) == multi_user
    (experiment,) = server.backend.experiments.values()
    (made,) = server.backend.pipelines.values()
    assert experiment.namespace == made.namespace == ("graftline" if multi_user else None)


def test_a_login_page_is_no_kubeflow(server: Server) -> None:
    with hearing(200, b"<html>Log in</html>") as (url, _):
        done = CliRunner().invoke(app, ["submit", TASK, "--endpoint", url])
    assert isinstance(done.exception, GraftlineError)
    assert "an answer that is not Kubeflow's: text/html" in str(done.exception)


@pytest.mark.parametrize("endpoint", ["", "kubeflow.example.com"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    done = CliRunner().invoke(app, ["submit", TASK, "--endpoint", endpoint], env={"GRAFTLINE_KFP": ""})
    assert isinstance(done.exception, InputError)
    assert "$GRAFTLINE_KFP" in str(done.exception)


@pytest.mark.parametrize("place", ["raw.dvc", "expectations.yaml"])
def test_data_that_is_not_committed_cannot_be_submitted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A cluster clones the commit: it would not find what lies here."""
    folder = tmp_path / "data/toy"
    folder.mkdir(parents=True)
    for name in ("raw.dvc", "expectations.yaml"):
        (folder / name).write_text("a: 1\n")
    git: Callable[..., Any] = lambda *arguments: subprocess.run(  # noqa: E731
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    monkeypatch.setattr(task_data, "ROOT", tmp_path)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "data")
    assert task_data.committed_revision("toy") == git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "unrelated.txt").write_text("new")
    assert task_data.committed_revision("toy")
    (folder / place).write_text("a: 2\n")
    with pytest.raises(InputError, match=f"data/toy/{place}: differs from the commit"):
        task_data.committed_revision("toy")
