"""Whatever happens, no run key is worked on twice, and one reconcile without faults sets everything right."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Machine
from world import World

from graftline.pipelines.reconcile import agenda, claims, kubeflow
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.desired import Desired
from graftline.pipelines.reconcile.planning import Actual

STEPS = int(os.environ.get("GRAFTLINE_RECONCILE_STEPS", "2500"))
LENGTH = 50
"""Most steps of one history; hypothesis makes some 40 on average."""


def histories(count: int, **more: Any) -> settings:
    return settings(
        max_examples=count, stateful_step_count=LENGTH, deadline=None, database=None, print_blob=False,
        suppress_health_check=list(HealthCheck), **more,
    )  # fmt: skip


def test_no_duplicates_and_always_converges() -> None:
    """The histories are the same on every run; another number of steps, from the environment, gives others."""

    class Counted(Machine):
        steps = 0

    run_state_machine_as_test(
        Counted, settings=histories(STEPS // 34 + 10, derandomize=True, phases=[Phase.generate])
    )
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


def finds(world_class: type[World], message: str) -> None:
    """Check that the histories hold one in which this world fails so: they are hard enough to need what it lacks."""

    class Mutant(Machine):
        steps = 0

    Mutant.world_class = world_class
    with pytest.raises(AssertionError, match=message):
        run_state_machine_as_test(Mutant, settings=histories(2000, derandomize=True, phases=[Phase.generate]))


def test_without_the_claim_the_histories_hold_a_duplicate() -> None:
    finds(WithoutClaims, "was worked on by 2 runs")


def test_a_ghost_that_is_counted_is_found() -> None:
    """K21: a run whose workflow is gone is RUNNING for ever; with concurrency 1 nothing would ever start again."""
    finds(CountingGhosts, "not_settled|has not run|no end|was lost|queued")


def test_a_slot_that_is_noted_when_it_is_asked_for_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """K22: a slot that was booked as started and never ran."""
    note = Agenda.note

    def hasty(self: Agenda, wanted: Desired, actual: Actual) -> None:
        asked = {(run.schedule, run.slot): actual.seen(run) for run in wanted.runs}
        started = {
            at: seen if seen.started or not seen.intent else _started(seen) for at, seen in asked.items()
        }
        note(self, wanted, Actual(runs=started))

    monkeypatch.setattr(Agenda, "note", hasty)
    finds(World, "was lost")


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


def test_a_lost_answer_that_is_asked_for_again_at_once_needs_the_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the time of grace the claim alone keeps a slot from being worked on twice, and it does."""
    monkeypatch.setattr(claims.Intent, "age", lambda self, now: float("inf"))

    class Hasty(Machine):
        steps = 0

    run_state_machine_as_test(Hasty, settings=histories(20, derandomize=True, phases=[Phase.generate]))


def _started(seen: Any) -> Any:
    return replace(seen, started=("asked",))
