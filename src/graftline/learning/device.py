"""Where a process computes: on its GPU, or on the CPU where there is none. Nothing else decides it.

    one process, or torchrun's       GPU number LOCAL_RANK of its machine: 0 without torchrun
    workers (evaluation/workers.py)  a GPU each, in turn; never more at once than there are GPUs

Modules move to the device when they are made. Data stay in main memory; a batch moves with `send`, after its random
numbers were drawn on the CPU: a GPU sees the same batches, warps and masks.
"""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import nn

COMPILED_STEPS = 2000
"""Steps from which compiling a model is worth its wait, about a minute on a GPU."""

_worker: int | None = None


def count() -> int:
    """Return how many GPUs this process may use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def place(number: int, gpus: int) -> str:
    """Return the device of the process or worker of that number, from 0, on a machine with so many GPUs."""
    return f"cuda:{number % gpus}" if gpus else "cpu"


def device() -> torch.device:
    """Return where this process computes."""
    name = place(own_number(), count())
    if name != "cpu":
        _prepare(name)
    return torch.device(name)


def own_number() -> int:
    """Return which of its machine's processes this is: the worker's number, else torchrun's LOCAL_RANK, else 0."""
    if _worker is not None:
        return _worker
    return int(os.environ["LOCAL_RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def be_worker(number: int) -> None:
    """Compute from here on where the worker of that number does."""
    global _worker
    _worker = number


def at_once(workers: int, gpus: int) -> int:
    """Return how many of so many workers may compute at once: a fit may need all of a GPU's memory."""
    return min(workers, gpus) if gpus else workers


@cache
def _prepare(name: str) -> None:
    # cuBLAS adds up in the same order each time only with a workspace of a fixed size; read at its first call
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; training narrows by autocast, and says so
    torch.cuda.set_device(name)


def send(tensor: torch.Tensor, to: torch.device) -> torch.Tensor:
    """Return a CPU tensor on a device; to a GPU from page-locked memory, so that the CPU need not wait."""
    if to.type == "cpu":
        return tensor
    return tensor.pin_memory().to(to, non_blocking=True)


def settle() -> None:
    """Wait until this process's GPU has done what it was given: a clock that is read before tells of less."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def compile_if_worth(module: nn.Module, steps: int) -> None:
    """Compile a module in place if it is on a GPU and trains long; on a CPU it takes longer than a short run saves.

    It depends on the whole run's steps, not on those that are left: a resumed run computes as an unbroken one.
    """
    weight = next(module.parameters())
    if weight.device.type == "cuda" and steps >= COMPILED_STEPS:
        torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler
        module.compile(dynamic=True)
