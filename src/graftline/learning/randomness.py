"""Randomness as a pure function of (seed, step): what resumes at step k draws what an unbroken run draws there."""

from __future__ import annotations

import hashlib
import importlib
from functools import lru_cache

import torch

from graftline.processes import importing


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a generator for one purpose (`batch`, `mask`, ...) at one step; different purposes are independent."""
    material = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    made = torch.Generator()
    made.manual_seed(int.from_bytes(material[:8], "big") >> 1)
    return made


def batch_indices(seed: int, step: int, size: int, count: int) -> torch.Tensor:
    """Return the (size,) int64 row indices of a step's batch.

    Batches run through one permutation of the `count` rows an epoch, without a gap between epochs.
    """
    positions = torch.arange(step * size, (step + 1) * size)
    epochs, offsets = positions // count, positions % count
    return torch.cat([permutation(seed, int(e), count)[offsets[epochs == e]] for e in epochs.unique()])


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> torch.Tensor:
    """Return (count,): the order of an epoch's rows."""
    return torch.randperm(count, generator=generator(seed, epoch, "epoch"))


def seed_everything(seed: int, threads: int) -> None:
    """Seed the global generator (initial weights) and fix what else decides the bits of a CPU run."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    # As torch.use_deterministic_algorithms(True), which imports the compiler to tell it too: see compile_if_worth.
    torch.set_deterministic_debug_mode("error")
    # Deterministic mode also fills all fresh memory, to show who reads it unset: a tenth of a step, for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with importing():  # else an optimizer's first step does
        importlib.import_module("torch._dynamo")
