"""One training step measured: its operations, its memory, its time on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

_MOST_STEPS = 200


@dataclass(frozen=True)
class Step:
    """A training step as a component makes it."""

    module: nn.Module
    optimizers: list[torch.optim.Optimizer]
    loss: Callable[[int], torch.Tensor]
    """The loss of a step (from 0), a scalar."""
    examples: float
    """Images or documents a step."""
    tokens: float | None = None
    """Tokens a step; None for images."""


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
    """Mean time, with the threads that were set."""
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
    _run(step, 0)
    mean = time_steps(step, seconds=seconds)
    weights = {id(weight): weight for weight in step.module.parameters()}
    trained = sum(weight.numel() for weight in weights.values() if weight.requires_grad)
    return Measured(
        parameters=sum(weight.numel() for weight in weights.values()), trained=trained,
        examples=step.examples, tokens=step.tokens, seconds=mean, flops=flops,
        state_bytes=_state_bytes(step), activation_bytes=activations,
    )  # fmt: skip


def time_steps(step: Step, *, seconds: float) -> float:
    """Return the mean seconds of a step, over at least two steps after one to warm up."""
    _run(step, 1)
    began, done = time.perf_counter(), 0
    while done < 2 or (time.perf_counter() - began < seconds and done < _MOST_STEPS):
        _run(step, done + 2)
        done += 1
    return (time.perf_counter() - began) / done


def _run(step: Step, number: int) -> None:
    loss = step.loss(number)
    for optimizer in step.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in step.optimizers:
        optimizer.step()


def _count_flops(step: Step) -> float:
    """Count operator by operator: 6 N a token and attention for a transformer (Kaplan et al., 2020), but exact."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

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
    for optimizer in step.optimizers:
        for state in optimizer.state.values():
            total += sum(value.nbytes for value in state.values() if isinstance(value, torch.Tensor))
    return total
