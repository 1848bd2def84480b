"""Reconcile against an HTTP server that follows Kubeflow's API (kfp_server.py says how far), over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from kfp_server import Fault, Request, serve
from kfp_server_api import models
from world import MemoryStore, ModelRepository, Process, Turn, World

from graftline import runs
from graftline.errors import BackendError, InputError
from graftline.kubeflow_api import connect
from graftline.pipelines.reconcile import claims, kubeflow
from graftline.pipelines.reconcile import reconcile as reconciling
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.desired import Desired, OneRun, Unknown
from graftline.pipelines.reconcile.drift import Row, exit_code, rows
from graftline.pipelines.reconcile.kubeflow import KubeflowBackend
from graftline.pipelines.reconcile.reconcile import reconcile
from graftline.pipelines.reconcile.repository import profiles_of
from graftline.pipelines.reconcile.schedules import Schedule
from graftline.pipelines.runkey import Work

HOURLY = Schedule(task="digits", profile="cpu", cron="15 * * * *")
ON_PUSH = Schedule(task="digits", profile="cpu", on_change=frozenset({"data", "parameters", "code"}))
"""With a place of its own: git holds no such version compiled, so that reconcile uploads it."""


class Wired(World):
    """A world whose calm reconciles go over HTTP; processes that crash do without."""

    url: str

    def kubeflow(self, store: MemoryStore | None = None, process: Process | None = None) -> KubeflowBackend:
        if process is not None:
            return super().kubeflow(store, process)
        self.client = connect(self.url)
        return self.backend_of(self.client.__enter__(), store or self.store, None)


@pytest.fixture
def world() -> Iterator[Wired]:
    made = Wired()
    with serve(made.backend) as made.url:
        yield made


def calls(world: Wired) -> list[str]:
    """What was changed, in words; ids left out."""
    words = []
    for request in world.backend.log:
        parts = request.path.strip("/").split("/")
        words.append(f"{'upload' if parts[-1].startswith('upload') else 'create'} {parts[0]}")
    world.backend.log.clear()
    return words


def given(world: Wired) -> list[dict[str, Any]]:
    """What each run was given, oldest first."""
    return [run.runtime_config.parameters for run in world.backend.runs.values()]


def slots(world: Wired) -> list[str]:
    return [json.loads(one["reason"])["slot"] for one in given(world)]


def test_a_slot_becomes_a_run_that_names_its_version(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    assert not world.backend.runs, "a schedule that is new counts from now on"
    world.pass_time(timedelta(hours=1))
    assert world.reconcile(None).settled
    assert calls(world) == ["create pipelines", "upload pipelines", "create experiments", "create runs"]
    (run,) = world.backend.runs.values()
    work = world.repository.work("hourly")
    pinned = world.backend.versions[run.pipeline_version_reference.pipeline_version_id]
    assert (pinned.display_name, run.service_account) == (work.version, "graftline-run")
    (told,) = given(world)
    assert told["run_key"] == work.run_key("20260327T121500Z")
    slot = {"kind": "schedule", "schedule": "hourly", "slot": "20260327T121500Z"}
    assert json.loads(told["reason"]) == slot
    world.run_all()
    world.reconcile(None)
    assert calls(world) == []


def test_missed_slots_are_caught_up_or_only_the_latest_runs(world: Wired) -> None:
    every = HOURLY.model_copy(update={"catch_up": True, "task": "words", "concurrency": 2})
    world.commit(schedules={"latest": HOURLY, "every": every})
    world.reconcile(None)
    world.pass_time(timedelta(hours=3))
    outcome = world.reconcile(None)
    assert len(outcome.queued) == 1
    world.run_all()
    world.reconcile(None)
    assert sorted(slots(world)) == ["20260327T121500Z", "20260327T131500Z", "20260327T141500Z", "20260327T141500Z"]


def test_a_slot_that_concurrency_holds_back_runs_once_there_is_room(world: Wired) -> None:
    """K22: Kubeflow books such a slot as started, and never runs it."""
    world.commit(schedules={"hourly": HOURLY})
    for _ in range(2):
        world.reconcile(None)
        world.pass_time(timedelta(hours=1))
    assert len(world.reconcile(None).queued) == 1
    world.pass_time(timedelta(minutes=10))
    world.run_all()
    world.reconcile(None)
    assert slots(world) == ["20260327T121500Z", "20260327T131500Z"]


def test_a_revert_takes_the_earlier_version(world: Wired) -> None:
    """K49: it is there still, though it is not the newest created, and nothing else has to happen."""
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    for code in (0, 7, 0):
        world.commit(code=code)
        world.pass_time(timedelta(hours=1))
        world.reconcile(None)
        world.run_all()
    first, changed, reverted = (one["version"] for one in given(world))
    assert first == reverted != changed
    assert len(world.backend.versions) == 2


def test_a_version_that_git_holds_is_waited_for_and_not_uploaded(world: Wired) -> None:
    """K24, K48: uploaded as well it would be there under two names."""
    world.commit(schedules={"on-push": ON_PUSH.model_copy(update={"profile": None})})
    assert world.repository.work("on-push").version in world.repository.manifests
    outcome = world.reconcile(None)
    assert (outcome.done, len(outcome.unsettled)) == ((), 1)
    (row,) = drift(world)
    assert row.actual == "waits: its version is not applied yet"
    world.apply_manifests()
    outcome = world.reconcile(None)
    assert outcome.settled
    assert calls(world) == ["create experiments", "create runs"]


def test_a_version_that_nobody_applies_is_uploaded_after_ten_minutes(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH.model_copy(update={"profile": None})})
    world.reconcile(None)
    world.pass_time(kubeflow.APPLIED_WITHIN)
    assert world.reconcile(None).settled
    assert len(world.backend.runs) == len(world.backend.versions) == 1


def test_a_ghost_counts_as_nothing_and_is_closed_as_lost(world: Wired) -> None:
    """K21, recordings/schedules-ghost-run.json: RUNNING in the API for ever, and no workflow."""
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    (run,) = world.backend.runs
    world.first_step(run)
    world.take_away(run, workflow_only=True)
    assert world.backend.runs[run].state == "RUNNING"
    assert [row.actual for row in drift(world)][1:] == ["none; it is LOST"]
    world.commit(code=1)
    outcome = world.reconcile(None)
    assert outcome.settled
    assert not outcome.queued
    assert len(world.backend.runs) == 2
    assert [end.state for end in runs.ends(world.store, run)] == ["LOST"]
    assert not [one for one in runs.open_runs(world.store) if one.run == run]


@pytest.mark.parametrize("deed", ["cancel", "delete"])
def test_a_run_that_ended_without_its_last_step_is_closed(world: Wired, deed: str) -> None:
    """K12, K13: after a cancel the exit handler's pods are often not made; the API says FAILED."""
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    (run,) = world.backend.runs
    world.first_step(run)
    if deed == "cancel":
        world.cancel(run)
    else:
        world.take_away(run, workflow_only=False)
    world.pass_time(timedelta(seconds=40))
    if deed == "cancel":
        assert world.backend.runs[run].state == "FAILED"
        world.reconcile(None)
        assert not runs.ends(world.store, run), "its own last step may still come"
        world.pass_time(kubeflow.ENDS_ITSELF)
    world.reconcile(None)
    assert [end.state for end in runs.ends(world.store, run)] == ["CANCELED" if deed == "cancel" else "LOST"]


def test_a_run_that_cannot_be_closed_holds_up_no_other(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    (run,) = world.backend.runs
    world.first_step(run)
    world.take_away(run, workflow_only=False)
    world.store.put_if_absent(f"runs/steps/{run}/fetch.1.json", b"{}")
    world.commit(code=1)
    outcome = world.reconcile(None)
    assert f"runs/steps/{run}/fetch.1.json" in outcome.failures[0]
    assert not outcome.settled
    assert [str(action)[:5] for action in outcome.done if str(action).startswith("start")] == ["start"]


def test_a_retried_run_that_succeeds_has_a_second_end(world: Wired) -> None:
    """K14: its exit handler does not run again."""
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    (run,) = world.backend.runs
    world.end(run, "FAILED", recorded=True)
    world.retry(run)
    world.reconcile(None)
    assert [end.state for end in runs.ends(world.store, run)] == ["FAILED"], "it is at work"
    world.end(run, "SUCCEEDED", recorded=False)
    world.pass_time(kubeflow.ENDS_ITSELF)
    world.reconcile(None)
    assert [end.state for end in runs.ends(world.store, run)] == ["FAILED", "SUCCEEDED"]


def test_a_commit_runs_once_and_one_that_changes_nothing_watched_does_not(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.reconcile(None)
    assert len(world.backend.runs) == 1
    world.commit()
    world.reconcile(None)
    assert len(world.backend.runs) == 1
    world.run_all()
    world.commit(data={"digits": 5, "words": 0})
    world.reconcile(None)
    *_, run = world.backend.runs.values()
    reason = json.loads(run.runtime_config.parameters["reason"])
    assert (reason["kind"], reason["changed"], reason["commit"]) == ("data", ["data"], world.repository.commit)
    assert len(world.backend.runs) == 2


def test_a_removed_run_does_not_come_back(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.run_all()
    world.backend.runs.clear()  # its time to live is over
    world.reconcile(None)
    assert not world.backend.runs


def test_a_lost_answer_is_settled_by_looking(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    seen: list[str] = []

    def lose_the_first_of_each(request: Request) -> Fault | None:
        if not request.changes or request.path in seen:
            return None
        seen.append(request.path)
        return Fault("act-then-drop")

    world.backend.fault = lose_the_first_of_each
    world.reconcile(None)
    outcome = world.reconcile(None)
    assert outcome.settled
    assert len(seen) == 4  # pipeline, version, experiment, run
    assert len(world.backend.runs) == 1


def test_a_run_that_arrives_late_stops_if_another_was_started_meanwhile(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.backend.fault = lambda request: Fault("late") if request.path == "/runs" and request.changes else None
    outcome = world.reconcile(None)
    assert not outcome.settled
    world.backend.fault = lambda request: None
    assert world.plan().actions == ()  # too early to ask again
    world.pass_time(timedelta(seconds=claims.GRACE_SECONDS + 1))
    world.reconcile(None)
    world.backend.land()
    assert len(world.backend.runs) == 2
    world.run_all()
    world.check()
    assert sorted(run.state for run in world.backend.runs.values()) == ["FAILED", "SUCCEEDED"]


def test_a_late_run_that_begins_before_its_slot_is_asked_for_again_keeps_the_slot(
    world: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit gives the slot another key; the run of the old key arrives just before the intent is replaced."""
    on_data = ON_PUSH.model_copy(update={"on_change": frozenset({"data"})})
    world.commit(schedules={"on-data": on_data})
    world.backend.fault = lambda request: Fault("late") if request.path == "/runs" and request.changes else None
    world.reconcile(None)
    world.backend.fault = lambda request: None
    world.pass_time(timedelta(seconds=claims.GRACE_SECONDS + 301))
    world.commit(code=1)
    ask = claims.ask

    def just_before(*arguments: Any) -> bool:
        world.backend.land()
        for run in list(world.backend.runs.values()):
            if run.state == "PENDING":
                world.first_step(run.run_id)
        return ask(*arguments)

    monkeypatch.setattr(claims, "ask", just_before)
    world.reconcile(None)
    world.run_all()
    world.check()
    assert len(world.worked) == len(world.backend.runs) == 1
    monkeypatch.undo()
    outcome = world.reconcile(None)
    assert outcome.settled
    assert not outcome.done


def test_a_refused_run_is_asked_for_again_at_once(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.backend.fault = lambda request: Fault("refuse", 429) if request.path == "/runs" and request.changes else None
    world.reconcile(None)
    world.backend.fault = lambda request: None
    outcome = world.reconcile(None)
    assert outcome.settled
    assert len(world.backend.runs) == 1


def test_a_slot_runs_once_though_a_commit_gives_it_another_key(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    world.pass_time(timedelta(hours=1))
    world.backend.fault = lambda request: Fault("late") if request.path == "/runs" and request.changes else None
    world.reconcile(None)
    world.backend.fault = lambda request: None
    world.commit(code=1)
    world.pass_time(timedelta(seconds=claims.GRACE_SECONDS + 1))
    world.reconcile(None)
    world.backend.land()
    assert len({one["run_key"] for one in given(world)}) == 2
    world.run_all()
    world.check()
    assert len(world.worked) == 1


def test_concurrency_holds_a_run_back_until_another_has_ended(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.commit(code=1)
    outcome = world.reconcile(None)
    assert len(outcome.queued) == 1
    assert len(world.backend.runs) == 1
    (row,) = drift(world)
    assert (row.actual, row.verdict) == ("waits: 1 of 1 at work", "same")
    world.run_all()
    world.reconcile(None)
    assert len(world.backend.runs) == 2


def test_a_paused_schedule_starts_nothing_and_going_on_repeats_no_missed_slot(world: Wired) -> None:
    paused = HOURLY.model_copy(update={"paused": True, "on_change": frozenset({"code"})})
    world.commit(schedules={"hourly": paused})
    world.reconcile(None)
    world.pass_time(timedelta(hours=5))
    world.reconcile(None)
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    assert not world.backend.runs
    world.pass_time(timedelta(hours=1))
    world.reconcile(None)
    assert slots(world) == ["20260327T171500Z"]


@pytest.mark.parametrize("gap", [{}, {"hourly": HOURLY.model_copy(update={"cron": "45 * * * *"})}])
def test_a_schedule_that_comes_back_counts_from_then(world: Wired, gap: dict[str, Schedule]) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    world.commit(schedules=gap)
    world.reconcile(None)
    world.pass_time(timedelta(minutes=40))
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    assert not world.backend.runs


def test_while_one_reconcile_holds_the_lease_another_does_nothing(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    first = Process(world, leased=True)
    for _ in range(4):
        first.step(Turn())
    assert world.reconcile(None) is None
    assert not world.backend.log
    first.run()
    assert world.plan().actions == ()


def test_a_schedule_that_cannot_be_told_loses_no_slot_and_stops_no_other(
    world: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = HOURLY.model_copy(update={"task": "words"})
    world.commit(schedules={"hourly": HOURLY, "words": words})
    world.reconcile(None)
    work = ModelRepository.work

    def broken(repository: ModelRepository, name: str) -> Work:
        if name == "words":
            raise InputError("data/words/params.yaml", "a toy mistake")
        return work(repository, name)

    monkeypatch.setattr(ModelRepository, "work", broken)
    world.pass_time(timedelta(hours=1))
    outcome = world.reconcile(None)
    assert not outcome.settled
    assert outcome.unknown == (Unknown("words", "data/words/params.yaml: a toy mistake"),)
    assert [one["task"] for one in given(world)] == ["digits"]
    found = drift(world)
    assert exit_code(found) == 2
    assert [(row.name, row.verdict) for row in found] == [("words", "unknown")]
    monkeypatch.undo()
    assert world.reconcile(None).settled
    assert [one["task"] for one in given(world)] == ["digits", "words"]


def test_what_the_last_round_did_is_not_left_to_do(world: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version takes two rounds: upload, start."""
    monkeypatch.setattr(reconciling, "ROUNDS", 2)
    world.commit(schedules={"on-push": ON_PUSH})
    outcome = world.reconcile(None)
    assert len(outcome.done) == 2
    assert outcome.settled


def test_runs_of_people_that_were_given_nothing_are_no_trouble(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.run_all()
    theirs = models.V2beta1Run(
        run_id="x",
        display_name="by hand",
        state="RUNNING",
        created_at=world.now,
        experiment_id=next(iter(world.backend.experiments)),
    )
    world.commit(code=1)
    theirs.display_name = next(run.name for run in world.desired().runs)
    world.backend.runs["x"] = theirs
    outcome = world.reconcile(None)
    assert [str(action)[:5] for action in outcome.done] == ["uploa", "start"]


def drift(world: Wired) -> list[Row]:
    desired = world.desired()
    return rows(desired, world.kubeflow().observe(desired, world.now), world.now)


def test_drift_is_told_from_sameness_and_from_not_knowing(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY, "on-push": ON_PUSH})
    found = drift(world)
    assert exit_code(found) == 1
    assert [row.actual for row in found] == ["missing"]
    world.reconcile(None)
    assert exit_code(drift(world)) == 0
    world.pass_time(timedelta(hours=1))
    assert [row.name for row in drift(world) if row.verdict == "drift"] == ["hourly 20260327T121500Z"]
    world.reconcile(None)
    world.run_all()
    world.commit(code=5)
    world.backend.fault = lambda request: Fault("late") if request.path == "/runs" and request.changes else None
    world.reconcile(None)
    world.backend.fault = lambda request: None
    assert exit_code(drift(world)) == 2
    world.backend.fault = lambda request: Fault("refuse", 503)
    with pytest.raises(BackendError, match="503 a fault of the test"):
        drift(world)


def test_two_schedules_that_want_the_same_run_get_one(world: Wired) -> None:
    world.commit(schedules={"one": HOURLY, "two": HOURLY})
    world.reconcile(None)
    world.pass_time(timedelta(hours=1))
    assert world.reconcile(None).settled
    assert len(world.backend.runs) == 1
    world.run_all()
    assert world.reconcile(None).done == ()


def test_the_compiled_pipeline_takes_what_its_runs_are_given(world: Wired) -> None:
    """The pipeline as it is compiled for a cluster, not the model's: its parameters are checked by the server."""
    from graftline.images import load_images
    from graftline.pipelines.compile import compiled

    pipeline = compiled("mnist", profiles=profiles_of(HOURLY.model_copy(update={"profile": "gpu-l4-spot"})))
    work = Work(
        task="mnist",
        pipeline=pipeline.pipeline,
        version=pipeline.version,
        parameters=pipeline.parameters,
        images=load_images().model_dump(),
        data_digest="d" * 64,
        revision="c" * 40,
        spec=pipeline.spec,
    )
    run = OneRun(work, f"commit:{'c' * 40}", {"kind": "commit", "schedule": "hourly"}, "hourly", 1)

    class Fixed(Agenda):
        def desired(self, now: Any) -> Desired:
            return Desired((run,))

    outcome = reconcile(world.kubeflow(), Fixed(world.repository, world.store), lambda: world.now)
    assert outcome.settled, outcome
    (told,) = given(world)
    assert told["run_key"] == work.run_key(f"commit:{'c' * 40}")
    assert (told["data_digest"], told["revision"], told["version"]) == ("d" * 64, "c" * 40, work.version)
