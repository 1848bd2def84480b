"""One training step measured: its operations, its memory, its time on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graftline.learning.device import device, settle
from graftline.learning.loop import Run, alone

_MOST_STEPS = 200
BUSY = 0.8
"""Below this share of a CPU the machine has other work: a step that waits for none gets 0.95 and more."""


@dataclass(frozen=True)
class Step:
    """A step of a training, as the component makes it."""

    run: Run
    examples: float
    """Images or documents a step."""
    tokens: float | None = None
    """Tokens a step; None for images."""

    def loss(self, number: int) -> torch.Tensor:
        return self.run.loss(number)

    @property
    def module(self) -> nn.Module:
        return self.run.module


@dataclass(frozen=True)
class Measured:
    """What one step takes."""

    parameters: int
    """Weights of the model, tied ones counted once."""
    trained: int
    """Those that are learned."""
    examples: float
    """Images or documents."""
    tokens: float | None
    """None for images."""
    seconds: float
    """Mean time, with the threads that were set; on a busy machine the part of it in which it had a CPU."""
    share: float
    """That part, from 0 to about 1."""
    flops: float
    """Operations of matrix products, convolutions and attention, forward and backward; a multiply-add is two."""
    state_bytes: int
    """Weights, their gradients and what the optimizer keeps."""
    activation_bytes: int
    """What the forward pass keeps for the backward pass."""


def measure(step: Step, *, seconds: float) -> Measured:
    """Return what `step` takes, from real steps that last about so many seconds. It changes the weights."""
    step.module.train()
    flops = _count_flops(step)
    activations = _count_activations(step)
    mean, share = time_steps(step, seconds=seconds)
    if share < BUSY:  # what the step takes once it has a CPU for itself: the wait for others is not the task's
        mean *= share
    weights = {id(weight): weight for weight in step.module.parameters()}
    trained = sum(weight.numel() for weight in weights.values() if weight.requires_grad)
    return Measured(
        parameters=sum(weight.numel() for weight in weights.values()),
        trained=trained,
        examples=step.examples,
        tokens=step.tokens,
        seconds=mean,
        share=share,
        flops=flops,
        state_bytes=_state_bytes(step),
        activation_bytes=activations,
    )


def time_steps(step: Step, *, seconds: float) -> tuple[float, float]:
    """Return the mean seconds of a step, over at least two steps after two to warm up, and the share of that time
    in which this thread had a CPU: about 1 on a machine that has nothing else to do."""
    run = step.run
    if not run.steps:  # a checkpoint is taken as it is; no schedule has a step of none
        run = replace(run, steps=1, schedule=lambda number: 1.0)
    make = alone(run)
    numbers = (number % run.steps for number in count())
    for _ in range(2):
        make(next(numbers))
    settle()
    began, own, done = time.perf_counter(), time.thread_time(), 0
    while done < 2 or (time.perf_counter() - began < seconds and done < _MOST_STEPS):
        make(next(numbers))
        done += 1
    settle()
    wall = time.perf_counter() - began
    # beside a GPU this thread may well wait
    return wall / done, 1.0 if device().type == "cuda" else (time.thread_time() - own) / wall


def _count_flops(step: Step) -> float:
    """Count operator by operator: 6 N a token and attention for a transformer (Kaplan et al., 2020), but exact."""
    # the counter does not know the CPU's fused attention; the plain one is matrix products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step.loss(0).backward()
    return float(counter.get_total_flops())


def _count_activations(step: Step) -> int:
    """Count the memory behind the tensors that the forward pass saves, but for the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in step.module.state_dict().values()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step.loss(0)
    return sum(saved.values())


def _state_bytes(step: Step) -> int:
    tensors = {id(t): t for t in (*step.module.parameters(), *step.module.buffers())}
    total = sum(t.nbytes + (t.grad.nbytes if t.grad is not None else 0) for t in tensors.values())
    for optimizer in step.run.optimizers:
        for state in optimizer.state.values():
            total += sum(value.nbytes for value in state.values() if isinstance(value, torch.Tensor))
    return total
