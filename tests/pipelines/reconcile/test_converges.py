"""Whatever happens, no run key is worked on twice, and one reconcile without faults sets everything right."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Machine
from world import World

from graftline.pipelines.kubeflow_api import KubeflowApi, Version

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

    run_state_machine_as_test(Counted, settings=histories(STEPS // 34 + 10, derandomize=True))
    print(f"{Counted.steps} steps")
    assert Counted.steps >= STEPS


class WithoutClaims(World):
    """Runs ask who holds their key, and begin to work whatever the answer is."""

    def hold(self, key: str, run_id: str, schedule: str, slot: str) -> None:
        super().hold(key, run_id, schedule, slot)


def test_without_the_claim_the_histories_hold_a_duplicate() -> None:
    """They are hard enough to need it."""

    class Mutant(Machine):
        steps = 0
        world_class = WithoutClaims

    with pytest.raises(AssertionError, match="was worked on 2 times"):
        run_state_machine_as_test(Mutant, settings=histories(2000, derandomize=True, phases=[Phase.generate]))


def test_a_version_that_is_not_pinned_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the version's id Kubeflow takes the newest created, so a revert would change nothing."""

    class Mutant(Machine):
        steps = 0

    pinned = KubeflowApi._reference

    def unpinned(api: KubeflowApi, version: Version) -> Any:
        reference = pinned(api, version)
        reference.pipeline_version_id = None
        return reference

    monkeypatch.setattr(KubeflowApi, "_reference", unpinned)
    with pytest.raises(AssertionError, match="is not pinned"):
        run_state_machine_as_test(Mutant, settings=histories(50, derandomize=True, phases=[Phase.generate]))
