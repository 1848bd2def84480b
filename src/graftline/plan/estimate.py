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
    answered: float
    """The part of `flops`, from 0 to 1, that is no step: validation and test rows, which every device of a pool that
    shares the batches computes whole."""
    apart: tuple[tuple[int, float], ...] | None
    """Steps and FLOP of each fit, where the fits are independent and each has a device; None where the devices of a
    pool share each step's batch."""


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
    devices: dict[str, str]
    """What the pool's accelerators do, by stage; empty for a pool of CPUs."""

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
    share: float
    """Of a CPU, the least that the timed steps of a model got: below `measure.BUSY` the machine was busy."""
    load: float
    """The system's load average over a minute, when it was measured."""

    def stage_seconds(self) -> dict[str, float]:
        """Return the seconds of each stage on this machine."""
        return _by_stage(self.rows, [row.seconds for row in self.rows], self.start_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self) | {"seconds": self.stage_seconds()}


def estimate_row(part: Part, measured: Measured, workers: int) -> Row:
    """Return what a part takes; `measured` was timed with one thread if its fits run apart, in so many workers."""
    per_example = measured.seconds / measured.examples
    seconds = [per_example * _work(fit) for fit in part.fits]
    examples = sum(fit.steps * fit.batch for fit in part.fits)
    tokens = measured.tokens
    flops = [measured.flops / measured.examples * _work(fit) for fit in part.fits]
    work = sum(_work(fit) for fit in part.fits)
    return Row(
        part.stage, part.name, len(part.fits), measured.parameters, measured.trained,
        steps=sum(fit.steps for fit in part.fits), examples=round(examples), unit=part.unit,
        tokens=None if tokens is None else round(examples * tokens / measured.examples),
        flops=sum(flops),
        state_bytes=measured.state_bytes,
        activation_bytes=measured.activation_bytes if examples else 0,  # a checkpoint taken as it is learns nothing
        seconds=part.other_seconds + (_makespan(seconds, workers) if part.apart else sum(seconds)),
        answered=1 - examples / work if work else 0.0,
        apart=tuple((fit.steps, each) for fit, each in zip(part.fits, flops, strict=True)) if part.apart else None,
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
    need = max(_memory(profile, row) for row in rows) / GIB
    cost = sum(seconds.values()) / 3600 * profile.price_per_hour
    return Cost(
        name,
        seconds,
        profile.price_per_hour,
        cost,
        need,
        need <= profile.memory_gib,
        profile.spot,
        devices={} if profile.cores is not None else {stage: _devices(profile, rows, stage) for stage in STAGES},
    )


def _seconds(profile: Profile, row: Row, threads: int) -> float:
    if profile.cores is not None:
        return row.seconds * threads / profile.cores
    assert profile.peak_tflops is not None
    rate, least = profile.peak_tflops * 1e12 * profile.utilisation, profile.least_step_ms / 1000
    if row.apart is not None:
        return _makespan([max(flops / rate, steps * least) for steps, flops in row.apart], _of_a_pod(profile))
    own = row.flops * ((1 - row.answered) / profile.count + row.answered)
    return max(own / rate, row.steps * least)


def _of_a_pod(profile: Profile) -> int:
    """Return the accelerators of one machine: independent fits are workers of one process, whatever `nodes` says."""
    return profile.pod.accelerators if profile.pod else profile.count


def _devices(profile: Profile, rows: Sequence[Row], stage: str) -> str:
    """Return what a pool's accelerators do in a stage."""
    own = [row for row in rows if row.stage == stage]
    if any(row.apart is not None for row in own):
        return f"{_of_a_pod(profile)}, one fit at a time on each"
    if profile.count == 1:
        return "1"
    if len(own) > 1:
        return f"refused: several trunks are trained one after the other, not by {profile.count} processes"
    return f"{profile.count} share each batch; what is only answered, each answers whole"


def _memory(profile: Profile, row: Row) -> float:
    """Return the bytes of one accelerator: the state of a whole model, and the activations of its share of a batch.

    A fit that has a device for itself has all of its batch. On CPUs such fits run side by side, one a core.
    """
    if profile.cores is not None:
        return (row.state_bytes + row.activation_bytes) * min(row.fits, profile.cores)
    return row.state_bytes + row.activation_bytes / (profile.count if row.apart is None else 1)


def _by_stage(rows: Sequence[Row], seconds: Sequence[float], start: float) -> dict[str, float]:
    """Return the seconds of each stage; each starts a process, and evaluate its workers after that."""
    starts = {"pretrain": start, "finetune": start, "evaluate": 2 * start}
    return {
        stage: starts[stage] + sum(s for row, s in zip(rows, seconds, strict=True) if row.stage == stage)
        for stage in STAGES
    }
