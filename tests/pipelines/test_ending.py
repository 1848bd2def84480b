"""How a run ended: read from recordings of a real Kubeflow, and written by the exit handler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kfp_server import RECORDINGS, recorded_run
from kubernetes_server import Backend, Request, serve, write_kubeconfig

from graftline import ending, runs
from graftline.pipelines import conclude, workflow
from graftline.pipelines.reconcile import claims
from graftline.runs import Attempt, End, Start
from graftline.store import Store
from graftline.store.opening import open_store

RUN, KEY, POD = (
    "10104e01-6750-48a5-97c1-c1d34857ebaa",
    "8a904bbae774b6b7",
    "retrain-mnist-sbrtz-system-container-impl-7",
)
REFUSED = "publish: mnist: nothing was released; min_accuracy is 0.928799, must be >= 1: off by 0.0712009"
START = Start(RUN, KEY, "mnist", "retrain-mnist-0", "9971cdec", "37a2b2ec", {"kind": "person", "who": "ada"})
DAYS, SECONDS = timedelta(hours=72), timedelta(seconds=200)


def recorded_workflow(name: str) -> dict[str, Any]:
    """Return Argo's view of a run: nodes by id, of which the recording is a list."""
    found: dict[str, Any] = json.loads((RECORDINGS / f"{name}-workflow.json").read_bytes())
    found["status"]["nodes"] = {node["id"]: node for node in found["status"]["nodes"]}
    return found


def said(step: str, code: int, line: str = "", *, minute: int = 0, round: int = 0) -> Attempt:
    moment = f"2026-11-28T23:{minute:02}:00+00:00"
    return Attempt(RUN, step, code, line, moment, moment, round=round)


@pytest.mark.parametrize(
    ("recording", "deadline", "state"),
    [
        ("runs-1-succeeded", DAYS, "SUCCEEDED"),
        ("runs-1-second-of-a-key", DAYS, "FAILED"),
        ("runs-2-gate-refused", DAYS, "FAILED"),
        ("runs-3-always-nested-cancelled", DAYS, "CANCELED"),
        ("runs-3-failed-retried-succeeded", DAYS, "SUCCEEDED"),
        ("runs-4-cancelled", DAYS, "CANCELED"),
        ("runs-4-cancelled-retried-cancelled", DAYS, "CANCELED"),
        ("runs-5-deadline", SECONDS, "OVERDUE"),
        ("runs-5-deadline", DAYS, "FAILED"),
        ("runs-7-bad-data", DAYS, "FAILED"),
        ("runs-7-wrong-secret", DAYS, "FAILED"),
        ("runs-9-cached-succeeded", DAYS, "SUCCEEDED"),
    ],
)
def test_what_the_api_says_of_a_run_that_is_over(recording: str, deadline: timedelta, state: str) -> None:
    """K12: never CANCELED; CANCELING before the end tells a cancel, the time a deadline."""
    assert ending.engine_state(recorded_run(recording), deadline) == state


def test_a_cancelled_run_that_was_retried_and_failed_has_failed() -> None:
    """K14: what counts is what came after the last RUNNING; nor has it a deadline any more."""
    run = recorded_run("runs-4-cancelled-retried-cancelled")
    run.state_history = [status for status in run.state_history if status.state != "CANCELING"]
    assert ending.engine_state(run, SECONDS) == "FAILED"


@pytest.mark.parametrize(
    ("recording", "told", "state", "why"),
    [
        ("runs-2-gate-refused", "FAILED", "FAILED", {"publish": "main: Error (exit code 1)"}),
        ("runs-3-always-nested", "RUNNING", "CANCELED", {"finetune": "main: Error (exit code 1)"}),
        ("runs-4-cancelled", "RUNNING", "CANCELED", {"pretrain": "main: Error (exit code 143)"}),
        ("runs-5-deadline", "RUNNING", "OVERDUE", {}),
        ("runs-7-missing-secret", "RUNNING", "CANCELED", {"fetch": "Step exceeded its deadline"}),
    ],
)
def test_what_the_workflow_says_of_a_run_that_ends(recording: str, told: str, state: str, why: dict[str, str]) -> None:
    """K11, K18: the exit handler is told RUNNING of a cancelled run; the Workflow's deadline of 0 tells it."""
    now = datetime(2026, 11, 29, 0, 12, tzinfo=UTC)
    found = recorded_workflow(recording)
    explained = {step: line for step, line in workflow.failures(found).items() if step in ending.ORDER}
    assert (workflow.engine_state(found, told, now), explained) == (
        state,
        {step: f"{step}: the pod failed ({message})" for step, message in why.items()},
    )


def test_a_lost_pod_is_no_cancel_and_no_deadline() -> None:
    """K11"""
    found = recorded_workflow("runs-2-gate-refused")
    now = datetime.fromisoformat(found["status"]["startedAt"]) + timedelta(hours=1)
    assert workflow.engine_state(found, "RUNNING", now) == "FAILED"
    assert workflow.engine_state(found, "COMPLETE", now) == "SUCCEEDED"


def test_a_step_that_was_killed_for_memory_says_so() -> None:
    """K35: nothing of it is in the API, and the step left no word."""
    found = recorded_workflow("runs-2-gate-refused")
    for node in found["status"]["nodes"].values():
        if node["displayName"] == "executor(0)" and node["phase"] == "Failed":
            node["message"] = "OOMKilled (exit code 1)"
    end = ending.end_of(START, [said("evaluate", 0)], "FAILED", workflow.failures(found))
    assert (end.state, end.step) == ("FAILED", "publish")
    assert "publish: killed for memory (OOMKilled (exit code 1)); give it more `memory_gib` in" in end.line


def test_a_pod_that_was_lost_and_made_again_is_no_reason() -> None:
    """K6, K8: Argo tries a lost pod again; what failed the run came later."""
    found = recorded_workflow("runs-2-gate-refused")
    nodes = found["status"]["nodes"]
    (done,) = (one for one in nodes.values() if one["id"] == "retrain-mnist-sbrtz-2350421735")  # finetune's
    nodes["lost"] = done | {
        "id": "lost",
        "phase": "Error",
        "message": "pod deleted",
        "startedAt": "2026-11-28T23:43:40Z",
    }
    assert list(workflow.failures(found)) == ["publish"]
    done["phase"] = "Failed"
    done["message"] = "pod deleted"
    assert list(workflow.failures(found)) == ["finetune", "publish"]


@pytest.mark.parametrize(
    ("words", "engine", "state", "step"),
    [
        ([said("fetch", 0), said("publish", 3, REFUSED)], "FAILED", "REFUSED", "publish"),
        ([said("fetch", 2, "fetch: no")], "FAILED", "FAILED", "fetch"),
        ([said("pretrain", 75, "pretrain: stopped")], "CANCELED", "CANCELED", "pretrain"),
        ([said("pretrain", 75, "pretrain: stopped")], "OVERDUE", "OVERDUE", "pretrain"),
        ([said("pretrain", 1, "full"), said("pretrain", 0), said("publish", 0)], "SUCCEEDED", "SUCCEEDED", ""),
        ([said("fetch", 0)], "LOST", "LOST", ""),
        ([said("publish", 0, "publish: equal to digits@3")], "SUCCEEDED", "SUCCEEDED", "publish"),  # K36
        ([said("publish", 0), said("conclude", 1, "conclude: no store")], "FAILED", "SUCCEEDED", ""),
        ([said("publish", 3, REFUSED), said("publish", 0, round=1)], "SUCCEEDED", "SUCCEEDED", ""),
        ([said("publish", 0), said("publish", 3, REFUSED, round=1)], "FAILED", "REFUSED", "publish"),
    ],
)
def test_words_and_the_engines_account_make_one_end(
    words: list[Attempt], engine: runs.State, state: str, step: str
) -> None:
    """K4, K14: the engine knows cancels and deadlines; what a step ended with only its word; the last round counts."""
    end = ending.end_of(START, words, engine)
    line = next((word.line for word in reversed(words) if word.step == step), "")
    assert (end.state, end.step, end.line) == (state, step, line)


class Cluster:
    """A run at its end: store, the objects of its cluster, and its last step."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(str(folder / "store"))
        self.url = str(folder / "store")
        self.kubernetes = Backend()

    def at(self, recording: str) -> None:
        """Let the run's Workflow be as it was recorded."""
        found = recorded_workflow(recording)
        self.put("argoproj.io/v1alpha1", "Workflow", found)
        labels = {"workflows.argoproj.io/workflow": found["metadata"]["name"]}
        self.put("v1", "Pod", {"metadata": {"name": POD, "labels": labels}})

    def put(self, version: str, kind: str, thing: dict[str, Any]) -> None:
        thing["metadata"]["namespace"] = "graftline"
        self.kubernetes.put({"apiVersion": version, "kind": kind, **thing})

    def deny(self, plural: str) -> None:
        """Let the run's service account have no right to ask for these."""

        def fault(request: Request) -> int | None:
            return 403 if f"/{plural}" in request.path else None

        self.kubernetes.fault = fault

    def conclude(self, state: str = "RUNNING", reason: dict[str, str] | None = None) -> None:
        status = {"state": state, "pipelineTaskName": "exit-handler-1", "error": {"message": ""}}
        conclude.main([
            "--status", json.dumps(status), "--task", "mnist", "--store", self.url, "--run-key", KEY,
            "--version", "retrain-mnist-0", "--revision", "9971cdec", "--data-digest", "37a2b2ec",
            "--reason", json.dumps(START.reason if reason is None else reason),
        ])  # fmt: skip

    @property
    def ends(self) -> list[End]:
        return runs.ends(self.store, RUN)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    (tmp_path / "namespace").write_text("graftline")
    monkeypatch.setattr(conclude, "_ACCOUNT", tmp_path)
    monkeypatch.setenv("GRAFTLINE_RUN", RUN)
    monkeypatch.setenv("GRAFTLINE_POD", POD)
    with serve(made.kubernetes) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield made


def test_conclude_tells_a_cancel_from_its_own_workflow(cluster: Cluster) -> None:
    """K11, K12, K18"""
    runs.begin(cluster.store, START)
    runs.add_attempt(
        cluster.store, said("pretrain", 75, "pretrain: stopped at step 1074; its checkpoint is kept", minute=52)
    )
    cluster.at("runs-4-cancelled")
    cluster.conclude()
    assert cluster.ends == [
        End(
            START,
            "CANCELED",
            "pretrain",
            "pretrain: stopped at step 1074; its checkpoint is kept",
            "2026-11-28T23:52:00+00:00",
        )
    ]
    assert runs.open_runs(cluster.store) == []


def test_conclude_names_the_refusal_that_the_launcher_hides(cluster: Cluster) -> None:
    """K4: for Argo a refusal is `Error (exit code 1)`."""
    runs.add_attempt(cluster.store, said("publish", 3, REFUSED, minute=45))
    cluster.at("runs-2-gate-refused")
    cluster.conclude("FAILED")
    (end,) = cluster.ends
    assert (end.state, end.step, end.line) == ("REFUSED", "publish", REFUSED)


def test_a_step_whose_pod_never_started_is_named(cluster: Cluster) -> None:
    """K10, K13: runs-7-missing-secret; the step could say nothing."""
    cluster.at("runs-7-missing-secret")
    cluster.conclude()
    (end,) = cluster.ends
    assert (end.state, end.step) == ("CANCELED", "fetch")
    assert end.line == "fetch: the pod failed (Step exceeded its deadline)"
    assert end.start == START, "a run that never came to claim its key is known from the arguments"


def test_where_the_workflow_may_not_be_read_the_words_decide(cluster: Cluster) -> None:
    cluster.at("runs-4-cancelled")
    cluster.deny("workflows")
    cluster.conclude()
    runs.add_attempt(cluster.store, said("publish", 3, REFUSED))
    cluster.conclude("FAILED")
    assert [(end.state, end.step) for end in cluster.ends] == [("FAILED", ""), ("REFUSED", "publish")]
    assert cluster.ends[0].line.startswith("cancelled, overdue, or without one of its pods: ")


def test_concluding_again_changes_nothing_and_a_retried_run_has_another_end(cluster: Cluster) -> None:
    """K14: the second end is beside the first, and is the one that counts."""
    runs.begin(cluster.store, START)
    runs.add_attempt(cluster.store, said("publish", 3, REFUSED))
    cluster.at("runs-2-gate-refused")
    cluster.conclude("FAILED")
    cluster.conclude("FAILED")
    assert [end.state for end in cluster.ends] == ["REFUSED"]
    assert runs.begin_again(cluster.store, RUN) == 1
    runs.add_attempt(cluster.store, said("publish", 0, minute=59, round=1))
    ending.close(cluster.store, START, "SUCCEEDED")
    assert [end.state for end in cluster.ends] == ["REFUSED", "SUCCEEDED"]


def test_what_the_run_left_goes_with_it(cluster: Cluster) -> None:
    """K40, K42: TrainJobs by the run's label, whatever became of their launcher; what was handed over to them."""
    for name, run in (("pretrain-1", RUN), ("finetune-1", RUN), ("pretrain-2", "x")):
        labels = {"graftline.dev/run": run}
        cluster.put("trainer.kubeflow.org/v1alpha1", "TrainJob", {"metadata": {"name": name, "labels": labels}})
    for run in (RUN, "x"):
        cluster.store.put_if_absent(f"handover/{run}/pretrain/note.a", b"")
    cluster.at("runs-4-cancelled")
    cluster.conclude()
    assert list(cluster.kubernetes.jobs) == ["pretrain-2"]
    assert cluster.store.list("handover/") == ["handover/x/pretrain/note.a"]


def test_jobs_that_cannot_be_deleted_do_not_hide_the_end(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.at("runs-4-cancelled")
    cluster.deny("trainjobs")
    cluster.conclude()
    assert [end.state for end in cluster.ends] == ["CANCELED"]
    assert "what the run left is not all gone" in capsys.readouterr().err


def test_a_run_that_was_told_to_stop_records_nothing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """K15: neither the loser of a key nor that of a slot did any work."""
    assert claims.hold(cluster.store, KEY, "another") is None
    cluster.conclude("FAILED")
    assert capsys.readouterr().out == f"conclude: the run another does the work of key {KEY}; nothing to record\n"
    cluster.store.delete(claims.claim_key(KEY))
    assert claims.hold(cluster.store, "old", "another", schedule="nightly", slot="s") is None
    cluster.conclude("FAILED", {"kind": "schedule", "schedule": "nightly", "slot": "s"})
    assert "slot s of schedule nightly is run under the key old; nothing to record" in capsys.readouterr().out
    assert cluster.ends == []
