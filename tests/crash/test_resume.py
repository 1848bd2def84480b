"""pretrain and finetune killed with SIGKILL anywhere and run again: the output has the digest of an unbroken run.

GRAFTLINE_ALL_CRASHES=1 kills 20 runs of each at random moments, and at every one of a checkpoint's calls.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import small
from kills import (
    Case,
    Moment,
    Outcome,
    Unbroken,
    cases,
    desk_folder,
    experiments,
    finish,
    moments,
    newest_checkpoint,
    run_killed,
    run_unbroken,
    start,
)

ALL = os.environ.get("GRAFTLINE_ALL_CRASHES") == "1"
COMPONENTS = ("pretrain", "finetune")
RENAME, FSYNC, UNLINK = "rename,renameat,renameat2", "fsync", "unlink,unlinkat"
# With a checkpoint after each step, the numbers fall into the third and later ones: there is one to go on from.
CALLS = [("pretrain", FSYNC, 19), ("finetune", RENAME, 3)]
if ALL:
    PLACES = (
        [(RENAME, n) for n in (2, 3, 4)]
        + [(FSYNC, n) for n in range(17, 33)]
        + [(UNLINK, n) for n in range(1, 5)]
    )
    CALLS = [(component, *place) for component in COMPONENTS for place in PLACES]


@dataclass(frozen=True)
class Control:
    """A case, and how it ends when nobody kills it."""

    case: Case
    unbroken: Unbroken


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Control]:
    home = tmp_path_factory.getbasetemp()
    made = cases(small.dataset(home), small.trunk(home), small.PARAMS)
    folder = tmp_path_factory.mktemp("unbroken")
    return {name: Control(case, run_unbroken(case, folder / case.output)) for name, case in made.items()}


def check(outcome: Outcome, control: Control) -> None:
    assert outcome.digest == control.unbroken.digest
    assert outcome.resumed_from == outcome.checkpoints, "a later try went on from the newest checkpoint"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_run_killed_again_and_again_ends_with_the_digest_of_an_unbroken_one(
    component: str, controls: dict[str, Control], tmp_path: Path
) -> None:
    """Four kills of one run, at random moments in this order: training, import, training further on, writing."""
    control = controls[component]
    drawn = [moment.share for moment in moments(COMPONENTS.index(component), 4)]
    plan = [
        Moment("training", drawn[0] * 0.5),
        Moment("import", drawn[1]),
        Moment("training", 0.5 + drawn[2] * 0.5),
        Moment("writing", 0),
    ]
    outcome = run_killed(control.case, tmp_path / control.case.output, control.unbroken, plan)
    check(outcome, control)
    assert outcome.killed == 4
    assert all(step > 0 for step in outcome.resumed_from), "none started from step 0"
    assert outcome.resumed_from == sorted(outcome.resumed_from)


@pytest.mark.skipif(not ALL, reason="takes minutes; GRAFTLINE_ALL_CRASHES=1 runs it")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("component", COMPONENTS)
def test_runs_killed_at_20_random_moments_end_with_the_digest_of_an_unbroken_one(
    component: str, controls: dict[str, Control], tmp_path: Path
) -> None:
    control = controls[component]
    for outcome in experiments(control.case, tmp_path, control.unbroken, moments(7, 20)):
        check(outcome, control)


@pytest.mark.strace
@pytest.mark.parametrize(("component", "calls", "number"), CALLS)
def test_a_run_killed_in_the_middle_of_a_checkpoint_goes_on_from_the_one_before(
    component: str, calls: str, number: int, controls: dict[str, Control], tmp_path: Path
) -> None:
    """strace kills the real process at its n-th call of a kind (strace(1), `-e inject`)."""
    control = controls[component]
    out = tmp_path / control.case.output
    inject = [f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={number}"]
    process = start(control.case, out, 0, ["strace", "-f", "-qq", "-o", os.devnull, "-e", *inject])
    _, error = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), error
    assert 1 <= newest_checkpoint(out) < 10, "killed at one of the first checkpoints"
    if calls == RENAME:
        assert list((desk_folder(out) / "checkpoints").glob(".*.aside-*")), "a checkpoint was under way"
    outcome = Outcome(killed=1)
    finish(control.case, out, outcome)
    check(outcome, control)
    assert outcome.resumed_from != [0]
