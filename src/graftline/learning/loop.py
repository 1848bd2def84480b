"""The training loop: steps, schedule, metrics, progress, checkpoints. What is learned is given as a function."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from graftline.durable import write_atomic
from graftline.errors import GraftlineError, InputError, PreemptedError
from graftline.learning import distributed
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.guard import Guard, LossError
from graftline.learning.metrics import MetricsLog
from graftline.learning.preemption import GRACE_SECONDS, Notice, noted
from graftline.learning.progress import Progress
from graftline.learning.spread import Spread
from graftline.learning.state import capture, restore

_SHOWN_ROWS = 10


class Watcher(Protocol):
    """Looks at the run after each step, keeps state of its own and may end it: early stopping, for one."""

    def after_step(self, step: int) -> bool:
        """Return True to stop after `step` steps (from 1)."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors and facts that `restore` needs."""

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


class _NoWatcher:
    def after_step(self, step: int) -> bool:
        return False

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {}, {}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        pass


@dataclass
class Run:
    """One training run."""

    module: nn.Module
    optimizer: torch.optim.Optimizer | list[torch.optim.Optimizer]
    """One, or several that share the parameters out among them; all follow the one schedule."""
    loss: Callable[[int], torch.Tensor]
    """The loss of step `step` (from 0) as a scalar; a pure function of the weights and the step."""
    steps: int
    warmup: int
    """Steps over which the learning rate rises from zero, before it falls as a half cosine to zero."""
    watcher: Watcher = field(default_factory=_NoWatcher)
    schedule: Callable[[int], float] | None = None
    """The factor of the learning rates at a step (from 0), instead of the half cosine; a pure function of the step."""
    clip: float | None = None
    """Largest norm of the gradient of all parameters together; a larger one is scaled down to it."""
    after_backward: Callable[[int], None] | None = None
    """Called at each step (from 0) between the backward pass and the optimizers: it may set other gradients."""
    rows: Callable[[int], Sequence[int | str]] | None = None
    """The ids of the rows in the batch of a step (from 0), to name those where the run goes wrong."""
    spike_factor: float | None = None
    """How far the loss may rise before the run stops, as `guard` measures it; None for any height."""
    addends: bool = False
    """On several processes, `loss` returns only this one's addend of the step's loss: the sum over its share of the
    rows (`distributed.share`), divided by the count of all of them. Otherwise each process computes the whole."""

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return self.optimizer if isinstance(self.optimizer, list) else [self.optimizer]


@dataclass
class Desk:
    """Where a run writes while it goes on."""

    name: str
    metrics: Path
    """The metrics file, a line a step."""
    checkpoints: Checkpoints
    batch: int | Callable[[int], int]
    """Units a step, for the rate that is shown; or a function that counts those of a step (from 0)."""
    unit: str = "images"
    shard: bool = False
    """On several processes, keep only a part of the weights and of the optimiser's state in each."""
    environment: dict[str, str | int] = field(default_factory=dict)
    """What the record says of the machine: a run adds `processes`, where there ever was more than one."""


def schedule(step: int, steps: int, warmup: int) -> float:
    """Return the factor of the learning rate at `step` (from 0): linear warm-up, then a half cosine to zero."""
    return _rise(step, warmup) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def linear(step: int, steps: int, warmup: int) -> float:
    """Return the factor of the learning rate at `step` (from 0): linear warm-up, then a straight line to zero."""
    return _rise(step, warmup) if step < warmup else (steps - step) / (steps - warmup)


def _rise(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def train(run: Run, desk: Desk | None = None) -> int:
    """Train `run.module` in place and return the number of steps done.

    With a desk, the run shows progress, writes its metrics file and checkpoints, and goes on from the newest
    checkpoint that verifies. Under torchrun all processes train together; it returns in the first one only, and ends
    the others. Without a desk it is silent, leaves nothing behind and knows of no other process.

    Raises:
        GraftlineError: the loss or a weight is NaN or infinite, or the loss rose and stayed high; names the step.
        PreemptedError: SIGTERM came; the run goes on from its newest checkpoint when it is started again.
    """
    try:
        if desk is None:
            return _train_alone(run)
        _keep_rates(run)
        with distributed.told_of_lost_peers():
            return _Training(run, desk).go()
    except LossError as error:
        raise GraftlineError(
            f"{error}{_place(run, desk, error.step)}; lower the learning rate, or look at the data"
        ) from None


def _place(run: Run, desk: Desk | None, step: int) -> str:
    """Return what helps to find what went wrong at `step` (from 1): its rows, and where all was still well."""
    if desk is None:
        return ""
    text = ""
    if run.rows is not None:
        ids = [str(row) for row in run.rows(step - 1)]
        path = desk.metrics.with_name(f"rows-of-step-{step}.txt")
        write_atomic(path, "".join(f"{row}\n" for row in ids).encode())
        more = f" and {len(ids) - _SHOWN_ROWS} more" if len(ids) > _SHOWN_ROWS else ""
        text = f"; its rows: {', '.join(ids[:_SHOWN_ROWS])}{more}, all in {path}"
    if desk.checkpoints.newest is None:
        return f"{text}; no checkpoint was written before it"
    good, folder = desk.checkpoints.newest
    return f"{text}; the last good checkpoint is of step {good}, in {folder}"


def alone(run: Run) -> Callable[[int], object]:
    """Return what makes a step (from 0) of a run that knows of no other process: in `train`, and in a plan."""
    forward = Spread(run.module, run.loss, run.optimizers, distributed.World(), addends=False, shard=False)
    _keep_rates(run)
    return lambda step: _step(run, step, forward)


def _keep_rates(run: Run) -> None:
    """Remember the learning rates that the schedule's factors are of."""
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["base"] = group["lr"]


def _train_alone(run: Run) -> int:
    done, stopped, step = 0, False, alone(run)
    while done < run.steps and not stopped:
        step(done)
        done += 1
        stopped = run.watcher.after_step(done)
    _check_finite(run.module.named_parameters(), done)
    return done


def _step(run: Run, step: int, forward: Spread) -> tuple[torch.Tensor, float]:
    """Return the loss of the step (from 0) and the learning rate."""
    factor = run.schedule(step) if run.schedule else schedule(step, run.steps, run.warmup)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
    loss = forward(step)
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if run.after_backward is not None:
        run.after_backward(step)
    if run.clip is not None:
        nn.utils.clip_grad_norm_(run.module.parameters(), run.clip)
    for optimizer in run.optimizers:
        optimizer.step()
    return forward.value(loss), float(run.optimizers[-1].param_groups[-1]["lr"])


def _check_finite(weights: Iterable[tuple[str, torch.Tensor]], done: int) -> None:
    """Raise LossError for NaN and infinity: what the last step broke shows in the weights, in no loss."""
    for name, weight in weights:
        if not bool(weight.isfinite().all()):
            raise LossError(done, f"{name} is NaN or infinite after step {done}")


class _Training:
    """This process's part in a run at a desk."""

    def __init__(self, run: Run, desk: Desk) -> None:
        """Meet the other processes, go on from the newest checkpoint, spread the module."""
        self._run, self._desk = run, desk
        self._team = distributed.start()
        if desk.shard and self._team.size > 1 and not isinstance(run.watcher, _NoWatcher):
            raise InputError(
                "--shard", "this run measures its model while it trains", fix="leave --shard out, or stop no run early"
            )
        self._guard = Guard(run.spike_factor)
        self._first, self._stopped, kept, self._sizes = self._resume()
        self._done, self._units = self._first, 0
        self._log = MetricsLog(desk.metrics, kept, self._guard) if self._team.leads else None
        if self._first and self._log:
            print(f"{desk.name}: going on from step {self._first} of {run.steps}", file=sys.stderr, flush=True)
        self._forward = Spread(run.module, run.loss, run.optimizers, self._team, addends=run.addends, shard=desk.shard)

    def _resume(self) -> tuple[int, bool, int | None, list[int]]:
        """Return the steps done, whether the watcher has ended the run, the metrics file's size, the teams' sizes."""
        own = self._desk.checkpoints.load() if self._team.leads else None
        checkpoint = distributed.from_leader(own)
        if checkpoint is None:
            return 0, False, None, [self._team.size]
        facts = checkpoint.facts
        restore(self._run, checkpoint.tensors, facts["watcher"])
        self._guard.restore(facts["guard"])
        sizes = sorted({*facts["processes"], self._team.size})
        return checkpoint.step, bool(facts["stopped"]), facts["metrics_bytes"], sizes

    def go(self) -> int:
        """Train to the end; return the steps done, in the leader only."""
        progress = None
        if self._team.leads:
            progress = Progress(self._desk.name, self._run.steps, self._desk.unit, done=self._first)
        try:
            with noted(self._desk.name) as notice:
                while self._done < self._run.steps and not self._stopped:
                    self._advance(notice)
                    if progress and (progress.due() or self._done == self._run.steps or self._stopped):
                        self._show(progress)
        finally:
            if progress:
                progress.close()
        if self._log:
            self._log.close()
        self._forward.gather()
        distributed.leave()
        _check_finite(self._run.module.named_parameters(), self._done)
        if self._sizes != [1]:
            self._desk.environment["processes"] = ", ".join(str(size) for size in self._sizes)
        return self._done

    def _advance(self, notice: Notice) -> None:
        loss, rate = _step(self._run, self._done, self._forward)
        batch = self._desk.batch
        self._units += batch if isinstance(batch, int) else batch(self._done)
        self._done += 1
        if self._log:
            self._log.add(self._done, loss, rate)
        stopped = self._run.watcher.after_step(self._done)
        leads = self._team.leads
        due, asked, self._stopped = distributed.any_of(
            leads and self._desk.checkpoints.due(), notice.asked, leads and stopped
        )
        if due or asked:
            self._save()
        if asked:
            if leads and (remote := self._desk.checkpoints.remote):
                remote.settle(notice.until or time.monotonic() + GRACE_SECONDS)
            distributed.barrier()  # torchrun ends the others as soon as one has ended
            raise PreemptedError(f"pre-empted after step {self._done} of {self._run.steps}; {self._way_on()}")

    def _save(self) -> None:
        """Write a checkpoint, unless the run looks as if it has gone wrong: then the one before stays the newest."""
        size = self._log.sync() if self._log else 0
        (suspect,) = distributed.any_of(self._guard.suspects)
        if suspect or not (self._log or self._forward.sharded):
            return
        tensors, watched = capture(self._run)
        if not self._log:
            return
        named = ((name, f"model.{name}") for name, _ in self._run.module.named_parameters())
        _check_finite(((name, tensors[key]) for name, key in named if key in tensors), self._done)
        facts = {
            "metrics_bytes": size,
            "stopped": self._stopped,
            "watcher": watched,
            "guard": self._guard.state(),
            "processes": self._sizes,
        }
        self._desk.checkpoints.save(self._done, tensors, facts)

    def _way_on(self) -> str:
        if self._desk.checkpoints.newest is None:
            return "run it again"
        step, folder = self._desk.checkpoints.newest
        text = f"run it again to go on from the checkpoint of step {step}, in {folder}"
        if remote := self._desk.checkpoints.remote:
            has = "none" if remote.newest is None else f"that of step {remote.newest}"
            text += f"; the store has {has}"
        return text

    def _show(self, progress: Progress) -> None:
        if self._log:
            self._log.flush()
            average = self._units / (self._done - self._first)
            progress.show(self._done, average, loss=self._log.last_loss)
