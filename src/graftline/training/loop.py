"""The training loop: steps, schedule, metrics, progress, checkpoints. What is learned is given as a function."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from graftline.errors import GraftlineError
from graftline.training.checkpoint import Checkpoint, Checkpoints
from graftline.training.metrics import MetricsLog
from graftline.training.progress import Progress


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
    optimizer: torch.optim.Optimizer
    loss: Callable[[int], torch.Tensor]
    """The loss of step `step` (from 0) as a scalar; a pure function of the weights and the step."""
    steps: int
    warmup: int
    """Steps over which the learning rate rises from zero, before it falls as a half cosine to zero."""
    watcher: Watcher = field(default_factory=_NoWatcher)


@dataclass
class Desk:
    """Where a run writes while it goes on."""

    name: str
    metrics: Path
    """The metrics file, a line a step."""
    checkpoints: Checkpoints
    batch: int
    """Examples a step, for the rate that is shown."""
    unit: str = "images"


def schedule(step: int, steps: int, warmup: int) -> float:
    """Return the factor of the learning rate at `step` (from 0): linear warm-up, then a half cosine to zero."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def train(run: Run, desk: Desk | None = None) -> int:
    """Train `run.module` in place and return the number of steps done.

    With a desk, the run shows progress, writes its metrics file and checkpoints, and goes on from the newest
    checkpoint that verifies. Without one it is silent and leaves nothing behind.

    Raises:
        GraftlineError: the loss or a weight is NaN or infinite; names the step.
    """
    for group in run.optimizer.param_groups:
        group["base"] = group["lr"]
    done = _train_alone(run) if desk is None else _train_at(desk, run)
    _check_finite(run.module, done)
    return done


def _train_alone(run: Run) -> int:
    for step in range(run.steps):
        _step(run, step)
        if run.watcher.after_step(step + 1):
            return step + 1
    return run.steps


def _check_finite(module: nn.Module, done: int) -> None:
    """Raise GraftlineError for NaN and infinity: what the last step broke shows in the weights, in no loss."""
    for name, weights in module.named_parameters():
        if not bool(weights.isfinite().all()):
            raise GraftlineError(
                f"{name} is NaN or infinite after step {done}; lower the learning rate, or look at the data"
            )


def _train_at(desk: Desk, run: Run) -> int:
    checkpoint = desk.checkpoints.load()
    first, stopped = _restore(run, checkpoint)
    log = MetricsLog(desk.metrics, checkpoint.facts["metrics_bytes"] if checkpoint else None)
    if first:
        print(f"{desk.name}: going on from step {first} of {run.steps}", file=sys.stderr, flush=True)
    progress = Progress(desk.name, run.steps, desk.unit, done=first)
    done = first
    try:
        while done < run.steps and not stopped:
            loss, rate = _step(run, done)
            done += 1
            log.add(done, loss, rate)
            stopped = run.watcher.after_step(done)
            if desk.checkpoints.due():
                _save(desk, run, done, stopped, log.sync())
            if progress.due() or done == run.steps or stopped:
                log.flush()
                progress.show(done, desk.batch, loss=log.last_loss)
    finally:
        progress.close()
    log.close()
    return done


def _step(run: Run, step: int) -> tuple[torch.Tensor, float]:
    factor = schedule(step, run.steps, run.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = group["base"] * factor
    loss = run.loss(step)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    return loss, float(run.optimizer.param_groups[-1]["lr"])


def _save(desk: Desk, run: Run, step: int, stopped: bool, metrics_bytes: int) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in run.module.state_dict().items()}
    for number, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    watched, facts = run.watcher.state()
    tensors |= {f"watcher.{name}": tensor for name, tensor in watched.items()}
    desk.checkpoints.save(
        step, tensors, {"metrics_bytes": metrics_bytes, "stopped": stopped, "watcher": facts}
    )


def _restore(run: Run, checkpoint: Checkpoint | None) -> tuple[int, bool]:
    """Put the checkpoint's state into the run; return the steps done and whether the watcher had ended it."""
    if checkpoint is None:
        return 0, False

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}

    run.module.load_state_dict(part("model."))
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in part("optimizer.").items():
        number, key = name.split(".", 1)
        states.setdefault(int(number), {})[key] = tensor
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": states, "param_groups": groups})
    run.watcher.restore(part("watcher."), checkpoint.facts["watcher"])
    return checkpoint.step, bool(checkpoint.facts["stopped"])
