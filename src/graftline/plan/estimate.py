"""From measured steps to a plan: operations, memory, time and cost of a whole run, here and on each pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graftline.profiles import Profile

if TYPE_CHECKING:
    from graftline.plan.measure import Measured
    from graftline.plan.parts import Fit, Part

STAGES = ("pretrain", "finetune", "evaluate")
GIB = 1 << 30
_FORWARD = 1 / 3
"""An answer's share of a training step's operations: the backward pass takes twice the forward one."""


@dataclass(frozen=True)
class Row:
    """One model's share of a stage, over all its fits."""

    stage: str
    model: str
    """Which of the stage's models; empty for its only or main one."""
    fits: int
    parameters: int
    trained: int
    """Parameters that are learned."""
    steps: int
    examples: int
    unit: str
    tokens: int | None
    """Trained on in all; None for images."""
    flops: float
    """Of matrix products, convolutions and attention; a multiply-add is two."""
    state_bytes: int
    """Weights, gradients and the optimizer's state of one fit."""
    activation_bytes: int
    """Kept for the backward pass of one fit."""
    seconds: float
    """On this machine."""


@dataclass(frozen=True)
class Cost:
    """A whole run on one pool."""

    profile: str
    seconds: dict[str, float]
    """By stage."""
    price_per_hour: float
    cost: float
    """In USD."""
    memory_gib: float
    """The largest stage's need on one accelerator, or on the machine."""
    fits: bool
    """Whether the pool has that memory."""
    spot: bool

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Plan:
    """What a run of a task takes."""

    task: str
    source: str
    """Where the number of rows is known from."""
    data_rows: dict[str, int]
    """By split."""
    threads: int
    """Of this machine."""
    start_seconds: float
    """Until a component's libraries are loaded."""
    rows: tuple[Row, ...]
    costs: tuple[Cost, ...]
    parameters: dict[str, Any]
    """The sections that were planned, defaults filled in."""

    def stage_seconds(self) -> dict[str, float]:
        """Return the seconds of each stage on this machine."""
        return _by_stage(self.rows, [row.seconds for row in self.rows], self.start_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self) | {"seconds": self.stage_seconds()}


def estimate_row(part: Part, measured: Measured, threads: int) -> Row:
    """Return what a part takes; `measured` was timed with one thread if its fits run apart, else with `threads`."""
    per_example = measured.seconds / measured.examples
    seconds = [per_example * _work(fit) for fit in part.fits]
    examples = sum(fit.steps * fit.batch for fit in part.fits)
    tokens = measured.tokens
    return Row(
        part.stage, part.name, len(part.fits), measured.parameters, measured.trained,
        steps=sum(fit.steps for fit in part.fits), examples=round(examples), unit=part.unit,
        tokens=None if tokens is None else round(examples * tokens / measured.examples),
        flops=measured.flops / measured.examples * sum(_work(fit) for fit in part.fits),
        state_bytes=measured.state_bytes, activation_bytes=measured.activation_bytes,
        seconds=part.other_seconds + (_makespan(seconds, threads) if part.apart else sum(seconds)),
    )  # fmt: skip


def _work(fit: Fit) -> float:
    """Return a fit's work, in examples that are trained on."""
    return fit.steps * fit.batch + fit.answered * _FORWARD


def _makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last worker ends, each taking the longest fit that is left."""
    ends = [0.0] * max(1, workers)
    for fit in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += fit
    return max(ends)


def price(name: str, profile: Profile, rows: Sequence[Row], threads: int, start_seconds: float) -> Cost:
    """Return what a run takes on a pool, from its operations, or from the time here for a pool of CPUs."""
    seconds = _by_stage(rows, [_seconds(profile, row, threads) for row in rows], start_seconds)
    need = max(_memory(profile, row, threads) for row in rows) / GIB
    cost = sum(seconds.values()) / 3600 * profile.price_per_hour
    return Cost(name, seconds, profile.price_per_hour, cost, need, need <= profile.memory_gib, profile.spot)


def _seconds(profile: Profile, row: Row, threads: int) -> float:
    if profile.cores is not None:
        return row.seconds * threads / profile.cores
    assert profile.peak_tflops is not None
    rate = profile.count * profile.peak_tflops * 1e12 * profile.utilisation
    return max(row.flops / rate, row.steps * profile.least_step_ms / 1000)


def _memory(profile: Profile, row: Row, threads: int) -> float:
    """Return the bytes of one accelerator: the state of a whole model, and the activations of its share of a batch.

    On CPUs the fits of the lift run side by side, one a core.
    """
    if profile.cores is not None:
        return (row.state_bytes + row.activation_bytes) * min(row.fits, profile.cores)
    return row.state_bytes + row.activation_bytes / profile.count


def _by_stage(rows: Sequence[Row], seconds: Sequence[float], start: float) -> dict[str, float]:
    """Return the seconds of each stage; each starts a process, and evaluate its workers after that."""
    starts = {"pretrain": start, "finetune": start, "evaluate": 2 * start}
    return {
        stage: starts[stage] + sum(s for row, s in zip(rows, seconds, strict=True) if row.stage == stage)
        for stage in STAGES
    }
