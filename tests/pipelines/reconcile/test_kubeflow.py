"""Reconcile against an HTTP server that follows Kubeflow's API (kfp_server.py says how far), over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from kfp_server import Fault, KfpBackend, Request, serve
from kfp_server_api import models
from world import MemoryStore, ModelRepository, Process, Turn, World

from graftline.errors import InputError
from graftline.pipelines.kubeflow_api import KubeflowApi, connect
from graftline.pipelines.reconcile import claims, planning
from graftline.pipelines.reconcile import reconcile as reconciling
from graftline.pipelines.reconcile.desired import Desired, OneRun, Recurring, Unknown
from graftline.pipelines.reconcile.drift import Row, exit_code, rows
from graftline.pipelines.reconcile.kubeflow import KubeflowBackend
from graftline.pipelines.reconcile.reconcile import BackendError, reconcile
from graftline.pipelines.reconcile.repository import Work, profiles_of
from graftline.pipelines.reconcile.schedules import Schedule

HOURLY = Schedule(task="digits", cron="15 * * * *")
ON_PUSH = Schedule(task="digits", on_change=frozenset({"data", "parameters", "code"}))


class Wired(World):
    """A world whose calm reconciles go over HTTP; processes that crash do without."""

    url: str

    def kubeflow(self, store: MemoryStore | None = None, process: Process | None = None) -> KubeflowBackend:
        if process is not None:
            return super().kubeflow(store, process)
        self.client = connect(self.url)
        api = KubeflowApi(
            self.client.__enter__(), namespace=self.backend.namespace, service_account="graftline-run"
        )
        return KubeflowBackend(api, store or self.store)


@pytest.fixture
def world() -> Iterator[Wired]:
    made = Wired()
    with serve(made.backend) as made.url:
        yield made


def enabled(backend: KfpBackend) -> list[Any]:
    return [one for one in backend.recurring_runs.values() if one.status == "ENABLED"]


def version_of(world: Wired, one: Any) -> str:
    return str(world.backend.versions[one.pipeline_version_reference.pipeline_version_id].name)


def calls(world: Wired) -> list[str]:
    """What was changed, in words; ids left out."""
    words = []
    for request in world.backend.log:
        parts = request.path.strip("/").split("/")
        action = parts[-1].partition(":")[2] or (parts[1] if parts[-1].startswith("upload") else "")
        words.append(f"{'delete' if request.method == 'DELETE' else action or 'create'} {parts[0]}")
    world.backend.log.clear()
    return words


def test_a_schedule_becomes_a_recurring_run_that_names_its_version(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    outcome = world.reconcile(None)
    assert outcome is not None
    assert outcome.settled
    (one,) = enabled(world.backend)
    assert version_of(world, one) == world.repository.work("hourly").version
    assert one.trigger.cron_schedule.cron == "0 15 * * * *"
    assert (one.no_catchup, one.max_concurrency, one.service_account) == (True, "1", "graftline-run")
    world.pass_time(timedelta(hours=1))
    (run,) = world.backend.runs.values()
    given = run.runtime_config.parameters
    assert given["run_key"].endswith("-20260327T121500Z")
    assert json.loads(given["reason"]) == {
        "kind": "schedule",
        "schedule": "hourly",
        "slot": "20260327T121500Z",
    }


def test_a_change_is_made_by_create_pause_unpause_delete(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    assert calls(world) == [
        "create pipelines", "upload_version pipelines", "create experiments", "create recurringruns",
        "enable recurringruns",
    ]  # fmt: skip
    world.commit(schedules={"hourly": HOURLY.model_copy(update={"concurrency": 2})})
    world.reconcile(None)
    assert calls(world) == [
        "create recurringruns", "disable recurringruns", "enable recurringruns", "delete recurringruns"
    ]  # fmt: skip
    world.reconcile(None)
    assert calls(world) == []


def test_a_deleted_schedule_is_paused_then_deleted_and_its_runs_stay(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    world.pass_time(timedelta(hours=1))
    world.run_all()
    world.commit(schedules={})
    world.backend.log.clear()
    world.reconcile(None)
    assert calls(world) == ["disable recurringruns", "delete recurringruns"]
    assert len(world.backend.runs) == 1


def test_a_revert_brings_back_the_earlier_version_and_schedule(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    before = version_of(world, enabled(world.backend)[0])
    world.commit(code=7, schedules={"hourly": HOURLY.model_copy(update={"cron": "45 * * * *"})})
    world.reconcile(None)
    assert version_of(world, enabled(world.backend)[0]) != before
    world.revert_to(1)
    world.reconcile(None)
    (one,) = enabled(world.backend)
    assert version_of(world, one) == before  # though it is not the newest created
    assert one.trigger.cron_schedule.cron == "0 15 * * * *"


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
    assert (reason["kind"], reason["changed"], reason["commit"]) == (
        "data",
        ["data"],
        world.repository.commit,
    )
    assert len(world.backend.runs) == 2


def test_a_removed_run_does_not_come_back(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.run_all()
    world.backend.runs.clear()  # its time to live is over
    world.reconcile(None)
    assert not world.backend.runs


def test_a_lost_answer_is_settled_by_looking(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY, "on-push": ON_PUSH})
    seen: list[str] = []

    def lose_the_first_of_each(request: Request) -> Fault | None:
        if not request.changes or request.path in seen:
            return None
        seen.append(request.path)
        return Fault("act-then-drop")

    world.backend.fault = lose_the_first_of_each
    world.reconcile(None)
    outcome = world.reconcile(None)
    assert outcome is not None
    assert outcome.settled
    assert len(seen) == 6  # pipeline, version, experiment, recurring run, run, and unpausing
    assert (len(world.backend.runs), len(enabled(world.backend))) == (1, 1)


def test_a_run_that_arrives_late_stops_if_another_was_started_meanwhile(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.backend.fault = lambda request: (
        Fault("late") if request.path == "/runs" and request.changes else None
    )
    outcome = world.reconcile(None)
    assert outcome is not None
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
    world.backend.fault = lambda request: (
        Fault("late") if request.path == "/runs" and request.changes else None
    )
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
    assert outcome is not None
    assert outcome.settled
    assert not outcome.done


def test_a_refused_run_is_asked_for_again_at_once(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.backend.fault = lambda request: (
        Fault("refuse", 429) if request.path == "/runs" and request.changes else None
    )
    world.reconcile(None)
    world.backend.fault = lambda request: None
    outcome = world.reconcile(None)
    assert outcome is not None
    assert outcome.settled
    assert len(world.backend.runs) == 1


def test_a_slot_runs_once_while_its_schedule_is_being_replaced(world: Wired) -> None:
    """Kubeflow runs the last slot that a recurring run missed: the new one repeats the slot that the old one ran."""
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    world.commit(code=1)
    process = Process(world, leased=False)
    while len(world.backend.recurring_runs) < 2:
        process.step(Turn(at_change=True))
    process.kill()
    world.pass_time(timedelta(hours=1))
    world.reconcile(None)
    world.pass_time(timedelta(minutes=1))
    assert len(world.backend.runs) == 2
    world.run_all()
    world.check()
    assert len(world.worked) == 1


def test_what_people_made_is_left_alone(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    (ours,) = enabled(world.backend)
    theirs = type(ours)(**{name: getattr(ours, name) for name in ours.openapi_types})
    theirs.recurring_run_id, theirs.display_name, theirs.description = "x", "nightly.0123456789ab", "mine"
    world.backend.recurring_runs["x"] = theirs
    world.commit(schedules={})
    world.reconcile(None)
    assert list(world.backend.recurring_runs) == ["x"]
    assert theirs.status == "ENABLED"


def test_concurrency_holds_a_run_back_until_another_has_ended(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.commit(code=1)
    outcome = world.reconcile(None)
    assert outcome is not None
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
    assert not world.backend.runs
    world.commit(schedules={"hourly": HOURLY})
    world.reconcile(None)
    world.pass_time(timedelta(minutes=1))
    assert not world.backend.runs
    world.pass_time(timedelta(hours=1))
    assert len(world.backend.runs) == 1


def test_while_one_reconcile_holds_the_lease_another_does_nothing(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY})
    first = Process(world, leased=True)
    for _ in range(4):
        first.step(Turn())
    assert world.reconcile(None) is None
    assert not world.backend.log
    first.run()
    assert world.plan().actions == ()


def test_a_schedule_that_cannot_be_told_is_left_alone_and_stops_no_other(
    world: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = HOURLY.model_copy(update={"task": "words"})
    world.commit(schedules={"hourly": HOURLY, "words": words})
    world.reconcile(None)
    before = {one.recurring_run_id for one in enabled(world.backend) if one.display_name[:5] == "words"}
    work = ModelRepository.work

    def broken(repository: ModelRepository, name: str) -> Work:
        if name == "words":
            raise InputError("data/words/params.yaml", "a toy mistake")
        return work(repository, name)

    monkeypatch.setattr(ModelRepository, "work", broken)
    world.commit(code=1)
    outcome = world.reconcile(None)
    assert outcome is not None
    assert not outcome.settled
    assert outcome.unknown == (Unknown("words", "data/words/params.yaml: a toy mistake"),)
    assert before <= {one.recurring_run_id for one in enabled(world.backend)}
    versions = {version_of(world, one) for one in enabled(world.backend)}
    assert world.repository.work("hourly").version in versions
    found = drift(world)
    assert exit_code(found) == 2
    assert [(row.name, row.verdict) for row in found if row.verdict != "same"] == [("words", "unknown")]
    monkeypatch.undo()
    outcome = world.reconcile(None)
    assert outcome is not None
    assert outcome.settled


def test_what_the_last_round_did_is_not_left_to_do(world: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new schedule takes three rounds: upload, create, unpause."""
    monkeypatch.setattr(reconciling, "ROUNDS", 3)
    world.commit(schedules={"hourly": HOURLY})
    outcome = world.reconcile(None)
    assert outcome is not None
    assert len(outcome.done) == 3
    assert outcome.settled


def test_runs_of_people_that_were_given_nothing_are_no_trouble(world: Wired) -> None:
    world.commit(schedules={"on-push": ON_PUSH})
    world.reconcile(None)
    world.run_all()
    theirs = models.V2beta1Run(
        run_id="x", display_name="by hand", state="RUNNING", created_at=world.now,
        experiment_id=next(iter(world.backend.experiments)),
    )  # fmt: skip
    world.commit(code=1)
    theirs.display_name = next(run.name for run in world.desired().runs)
    world.backend.runs["x"] = theirs
    outcome = world.reconcile(None)
    assert outcome is not None
    assert [str(action)[:5] for action in outcome.done] == ["uploa", "start"]


def drift(world: Wired) -> list[Row]:
    desired = world.desired()
    return rows(desired, world.kubeflow().observe(desired, world.now), world.now)


def test_drift_is_told_from_sameness_and_from_not_knowing(world: Wired) -> None:
    world.commit(schedules={"hourly": HOURLY, "on-push": ON_PUSH})
    found = drift(world)
    assert exit_code(found) == 1
    assert [row.actual for row in found] == ["missing", "missing"]
    world.reconcile(None)
    assert exit_code(drift(world)) == 0
    one = enabled(world.backend)[0]
    one.status = one.mode = "DISABLED"
    assert next((row.actual, row.verdict) for row in drift(world)) == ("paused", "drift")
    world.commit(schedules={"on-push": ON_PUSH})
    assert next((row.desired, row.verdict) for row in drift(world)) == ("nothing", "drift")
    world.reconcile(None)
    world.run_all()
    world.commit(code=5)
    world.backend.fault = lambda request: (
        Fault("late") if request.path == "/runs" and request.changes else None
    )
    world.reconcile(None)
    world.backend.fault = lambda request: None
    assert exit_code(drift(world)) == 2
    world.backend.fault = lambda request: Fault("refuse", 503)
    with pytest.raises(BackendError, match="503 a fault of the test"):
        drift(world)


def test_a_plan_is_a_function_of_what_is_there() -> None:
    """The older of two with the same identity stays, and nothing is unpaused while another one is enabled."""
    world = World()
    world.commit(schedules={"hourly": HOURLY})
    desired = world.desired()
    (wanted,) = desired.recurring
    versions = {wanted.work.version}

    def there(name: str, identity: str, enabled: bool, minute: int) -> planning.ActualRecurring:
        created = datetime.fromisoformat(f"2026-03-27T12:{minute:02}:00+00:00")
        return planning.ActualRecurring(name, "hourly", identity, enabled, created)

    old, first = there("a", "0" * 12, True, 0), there("c", wanted.identity, False, 1)
    second = there("b", wanted.identity, False, 2)
    steps = planning.plan(desired, planning.Actual(versions, (second, first, old)), world.now).actions
    assert steps == (planning.Switch(old, False),)
    paused = there("a", "0" * 12, False, 0)
    steps = planning.plan(desired, planning.Actual(versions, (second, first, paused)), world.now).actions
    assert steps == (planning.Switch(first, True),)
    on = there("c", wanted.identity, True, 1)
    steps = planning.plan(desired, planning.Actual(versions, (second, on, paused)), world.now).actions
    assert steps == (planning.Delete(second), planning.Delete(paused))


def test_the_compiled_pipeline_takes_what_its_runs_are_given(world: Wired) -> None:
    """The pipeline as it is compiled for a cluster, not the model's: its parameters are checked by the server."""
    from graftline.pipelines.compile import compiled
    from graftline.pipelines.images import load_images

    pipeline = compiled("mnist", profiles=profiles_of(HOURLY.model_copy(update={"profile": "gpu-l4-spot"})))
    work = Work(
        task="mnist", pipeline=pipeline.pipeline, version=pipeline.version, parameters=pipeline.parameters,
        images=load_images().model_dump(), data_digest="d" * 64, revision="c" * 40, spec=pipeline.spec,
    )  # fmt: skip
    recurring = Recurring("hourly", work, "0 15 * * * *", 1, False, False)
    run = OneRun("hourly", work, f"commit:{'c' * 40}", {"kind": "commit", "schedule": "hourly"}, 1)
    desired = Desired((recurring,), (run,))
    outcome = reconcile(world.kubeflow(), lambda now: desired, lambda: world.now)
    assert outcome.settled, outcome
    world.backend.set_state(next(iter(world.backend.runs)), "SUCCEEDED")
    world.pass_time(timedelta(hours=1))
    by_commit, by_slot = (run.runtime_config.parameters for run in world.backend.runs.values())
    assert by_commit["run_key"] == work.run_key(f"commit:{'c' * 40}")
    assert by_slot["run_key"] == f"{work.run_key('')[:32]}-20260327T121500Z"
    assert by_slot.keys() == by_commit.keys()
    assert (by_slot["data_digest"], by_slot["revision"], by_slot["version"]) == (
        "d" * 64,
        "c" * 40,
        work.version,
    )
