"""Whatever happens, no run key is worked on twice, and one reconcile without faults sets everything right."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import initialize, run_state_machine_as_test
from kfp_server import Fault
from machine import Machine
from world import World

from graftline.pipelines.reconcile import agenda, claims, kubeflow
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.desired import Desired
from graftline.pipelines.reconcile.planning import Actual
from graftline.pipelines.reconcile.schedules import Schedule

STEPS = int(os.environ.get("GRAFTLINE_RECONCILE_STEPS", "2500"))
LENGTH = 50
"""Most steps of one history; hypothesis makes some 40 on average."""


def histories(count: int, **more: Any) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=LENGTH,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def test_no_duplicates_and_always_converges() -> None:
    """The histories are the same on every run; another number of steps, from the environment, gives others."""

    class Counted(Machine):
        steps = 0

    run_state_machine_as_test(Counted, settings=histories(STEPS // 34 + 10, derandomize=True, phases=[Phase.generate]))
    print(f"{Counted.steps} steps")
    assert Counted.steps >= STEPS


class WithoutClaims(World):
    """Runs ask who holds their key, and begin to work whatever the answer is."""

    def hold(self, key: str, run_id: str, schedule: str, slot: str) -> None:
        super().hold(key, run_id, schedule, slot)


class CountingGhosts(World):
    """What Kubeflow's API calls a run is believed."""

    def ghosts(self, asked: Collection[str]) -> set[str]:
        return set()


class Busy(Machine):
    """Histories of schedules that start much, so that a bug need not be waited for."""

    @initialize()
    def start(self) -> None:
        every = frozenset({"data", "parameters", "code"})
        busy = Schedule(task="digits", cron="*/20 * * * *", profile="cpu", on_change=every)
        catching = Schedule(task="words", cron="0 */6 * * 1-5", catch_up=True, concurrency=5)
        self._begin({"hourly": busy, "nightly": catching})


def finds(world_class: type[World], message: str, number: int = 0) -> None:
    """Check that the histories hold one in which this world fails so: they are hard enough to need what it lacks.

    `number` says which histories: of any number one in some hundreds does, and of these one of the first.
    """

    @seed(number)
    class Mutant(Busy):
        steps = 0

    Mutant.world_class = world_class
    with pytest.raises(AssertionError, match=message):
        run_state_machine_as_test(Mutant, settings=histories(2000, phases=[Phase.generate]))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost answer is asked for again at once: nothing but the claim is left that tells two runs of a key apart."""
    monkeypatch.setattr(claims.Intent, "age", lambda self, now: float("inf"))


@pytest.mark.usefixtures("impatient")
def test_the_claim_alone_keeps_work_from_being_done_twice() -> None:
    class Impatient(Busy):
        steps = 0

    run_state_machine_as_test(Impatient, settings=histories(30, derandomize=True, phases=[Phase.generate]))


@pytest.mark.usefixtures("impatient")
def test_without_the_claim_the_histories_hold_a_duplicate() -> None:
    finds(WithoutClaims, "was worked on by 2 runs", 1)


def test_a_ghost_that_is_counted_is_found() -> None:
    """K21: a run whose workflow is gone is RUNNING for ever; with concurrency 1 nothing would ever start again."""
    finds(CountingGhosts, "not_settled|has not run|no end|was lost|queued", 3)


def test_a_slot_that_is_noted_when_it_is_asked_for_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """K22: a slot that was booked as started and never ran."""
    note = Agenda.note

    def hasty(self: Agenda, wanted: Desired, actual: Actual) -> None:
        asked = {(run.schedule, run.slot): actual.seen(run) for run in wanted.runs}
        started = {at: seen if seen.started or not seen.intent else _started(seen) for at, seen in asked.items()}
        note(self, wanted, Actual(runs=started))

    monkeypatch.setattr(Agenda, "note", hasty)
    world = World()
    world.commit(schedules={"hourly": Schedule(task="digits", profile="cpu", cron="15 * * * *")})
    world.reconcile(None)
    world.pass_time(timedelta(hours=1))
    world.backend.fault = lambda request: Fault("drop") if request.changes and request.path == "/runs" else None
    world.reconcile(None)
    world.backend.fault = lambda request: None
    world.settle()
    with pytest.raises(AssertionError, match="was lost"):
        world.check_converged()


def test_a_look_of_before_the_last_one_that_decides_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reconcile that slept would reset since when the slots of a schedule count."""
    begin = Agenda.begin

    def forgetful(self: Agenda, now: datetime) -> None:
        begin(self, now.replace(year=9999))

    monkeypatch.setattr(agenda.Agenda, "begin", forgetful)
    finds(World, "was lost")


def test_an_end_that_nobody_records_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """K13, K14: a run that was cancelled, or that a person retried, ends without its exit handler."""
    monkeypatch.setattr(kubeflow.KubeflowBackend, "_ended", lambda self, now: ())
    finds(World, "has no end in the store")


def _started(seen: Any) -> Any:
    return replace(seen, started=("asked",))
