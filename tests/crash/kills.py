"""Runs of pretrain and finetune that are killed with SIGKILL and run again: shared by tests and `python -m bench`.

A moment is a place in a run to kill it at: while it imports, at a step of the training, or while it writes its output.
What is on the disk says where a run is; nothing in the product knows of it.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import forked
import traced

from graftline.digests import RECORD
from graftline.learning.metrics import read_metrics
from graftline.records.folder import verify

_POLL = 0.005
_PATIENCE = 500.0  # for a machine with much else to do: what hangs, pytest ends
PHASES = {"training": 6, "writing": 2, "import": 2}
"""Where to kill, and how often in relation to one another. Few kills fall into the first ones: what is importing has
written nothing yet, whatever it will train."""


@dataclass(frozen=True)
class Moment:
    phase: str
    share: float
    """How far into the phase, 0 to 1: of its seconds when importing, of its steps in training."""


@dataclass(frozen=True)
class Case:
    """A training component with small inputs."""

    component: str
    output: str
    weights: str
    """The file that it writes first when training is over."""
    arguments: list[str]

    def command(self, out: Path, checkpoint_seconds: float) -> list[str]:
        """Return the real entry point's command."""
        seconds = ["--checkpoint-seconds", str(checkpoint_seconds)]
        settings = ["--threads", "1", *seconds, f"--out-{self.output}", str(out)]
        return [sys.executable, "-m", f"graftline.components.{self.component}", *self.arguments, *settings]


@dataclass(frozen=True)
class Unbroken:
    """How a run went that nobody killed."""

    digest: str
    steps: int
    import_seconds: float


@dataclass
class Outcome:
    """How a run went that was killed and run again until it was done."""

    digest: str = ""
    killed: int = 0
    resumed_from: list[int] = field(default_factory=list)
    """The step that each later try went on from by its own words; 0 for none."""
    checkpoints: list[int] = field(default_factory=list)
    """The newest checkpoint that lay there before each later try; 0 for none."""


def cases(dataset: Path, trunk: Path, document: dict[str, Any]) -> dict[str, Case]:
    """Return pretrain and finetune, with enough steps to kill them at."""
    pretrain = document["pretrain"] | {"epochs": 16}
    finetune = document["finetune"] | {"epochs": 8, "patience": 5, "joint_weight": 0.1}
    text = json.dumps({"task": "digits", "pretrain": pretrain, "finetune": finetune})
    inputs = ["--params", text, "--in-dataset", str(dataset)]
    return {
        "pretrain": Case("pretrain", "trunk", "trunk.safetensors", inputs),
        "finetune": Case("finetune", "model", "model.safetensors", [*inputs, "--in-trunk", str(trunk)]),
    }


def moments(seed: int, count: int) -> list[Moment]:
    """Return `count` random moments, the same for the same seed; each phase comes up if there are enough."""
    draw = random.Random(seed)
    phases = [*PHASES, *draw.choices(list(PHASES), list(PHASES.values()), k=max(0, count - len(PHASES)))][:count]
    draw.shuffle(phases)
    return [Moment(phase, draw.random()) for phase in phases]


def work_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.work")


def desk_folder(out: Path) -> Path:
    """Return the folder of the run's metrics and checkpoints; a path that does not exist before there is one."""
    desks = (f for f in work_folder(out).glob("*") if re.fullmatch("[0-9a-f]{16}", f.name))
    return next(desks, work_folder(out) / "none")


def newest_checkpoint(out: Path) -> int:
    """Return the step of the newest checkpoint on the disk, or 0."""
    folder = desk_folder(out) / "checkpoints"
    try:
        return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=0)
    except FileNotFoundError:
        return 0


def start(
    case: Case, out: Path, checkpoint_seconds: float = 0.02, at: tuple[str, int] | None = None, *, new: bool = False
) -> subprocess.Popen[str]:
    """Start the entry point: as a fork, or as a `new` process, which imports everything itself.

    `at` names a call and at which one of the kind it is killed.
    """
    # With the commit given, an edit in the work tree meanwhile does not make the checkpoints those of other code.
    environment = os.environ | {"GRAFTLINE_COMMIT": "0" * 40, "PYTHONDONTWRITEBYTECODE": "1"}
    command = case.command(out, checkpoint_seconds)
    if at:
        return traced.start(command, at[0], "signal=SIGKILL", at[1], env=environment, stderr=subprocess.PIPE, text=True)
    if new:
        command = forked.listing(command)
    popen = subprocess.Popen if new else forked.Popen
    return popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def run_unbroken(case: Case, out: Path, *, new: bool = True) -> Unbroken:
    """Run to the end, as `start` says, and measure where the phases are: of imports, if they are not a fork's."""
    started = time.monotonic()
    process = start(case, out, checkpoint_seconds=15, new=new)
    _wait(process, lambda: (desk_folder(out) / "metrics.jsonl").exists())
    imported = time.monotonic() - started
    _, error = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, error
    return Unbroken(verify(out).content, len(read_metrics(out / "metrics.jsonl")), imported)


def run_killed(case: Case, out: Path, unbroken: Unbroken, kill_at: list[Moment], *, new: bool = False) -> Outcome:
    """Run, kill at each of the moments in their order, run again to the end; each try as `start` says."""
    outcome = Outcome()
    for moment in kill_at:
        before = newest_checkpoint(out)
        process = start(case, out, new=new or moment.phase == "import")
        _wait(process, _reached(moment, case, out, unbroken))
        process.kill()
        _, error = process.communicate(timeout=_PATIENCE)
        assert process.returncode == -signal.SIGKILL, f"ended before it was killed at {moment}: {error}"
        assert not (out / RECORD).exists(), "an output of a run that was killed"
        if outcome.killed and moment.phase != "import":  # one that was still importing has said nothing
            _note_resume(outcome, before, error)
        outcome.killed += 1
    finish(case, out, outcome, new=new)
    return outcome


def finish(case: Case, out: Path, outcome: Outcome, *, new: bool = False) -> None:
    """Run to the end; put its digest and where it went on into `outcome`."""
    before = newest_checkpoint(out)
    process = start(case, out, checkpoint_seconds=15, new=new)
    _, error = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, error
    _note_resume(outcome, before, error)
    outcome.digest = verify(out).content
    assert not work_folder(out).exists(), "checkpoints of a run that is done"
    assert not list(out.parent.glob(f".{out.name}.aside-*")), "half an output"


def experiments(case: Case, folder: Path, unbroken: Unbroken, kill_at: list[Moment]) -> Iterable[Outcome]:
    """Yield one outcome a moment, each of a run of its own, killed once."""
    for number, moment in enumerate(kill_at):
        out = folder / str(number) / case.output
        yield run_killed(case, out, unbroken, [moment])
        shutil.rmtree(out.parent)


def _note_resume(outcome: Outcome, before: int, error: str) -> None:
    said = [line for line in error.splitlines() if "going on from step" in line]
    outcome.resumed_from.append(int(said[0].split("step ")[1].split()[0]) if said else 0)
    outcome.checkpoints.append(before)


def _reached(moment: Moment, case: Case, out: Path, unbroken: Unbroken) -> Callable[[], bool]:
    began = time.monotonic()
    if moment.phase == "import":
        return lambda: time.monotonic() - began >= moment.share * unbroken.import_seconds
    if moment.phase == "training":
        step = 1 + int(moment.share * 0.8 * unbroken.steps)  # a checkpoint follows before the last one
        return lambda: newest_checkpoint(out) >= step
    return lambda: any(out.parent.glob(f".{out.name}.aside-*/{case.weights}"))


def _wait(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not reached() and process.poll() is None:
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(_POLL)
