"""Held-out masked-LM loss at equal tokens: one process an arm and seed, two at a time."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bench.text_data import BATCH_TOKENS, LENGTH, Data, grouped
from bench.text_loop import Rates, language_model, pretraining_run
from bench.text_trainer import pretraining, run_trainer
from graftline.text.batches import Packed, pack
from graftline.trunks.text.documents import Documents

SHAPE = "modernbert 2x128"


@dataclass(frozen=True)
class TrainerArm:
    """The Trainer on grouped blocks."""

    batch: int
    """Blocks a step."""
    rate: float = 5e-5
    """Peak learning rate."""


BASELINES = {
    "Trainer, its defaults (8 blocks a step, rate 5e-5)": TrainerArm(8),
    "Trainer, 8 blocks a step, rate 1e-3": TrainerArm(8, 1e-3),
}
ARMS: dict[str, TrainerArm | Rates] = {
    **BASELINES,
    "Graftline, AdamW 2e-3": Rates(),
    "Graftline, Muon 0.02 and AdamW 3e-3": Rates("muon", 3e-3, 0.02),
}


def measure_arms(folder: Path, *, tokens: int, seeds: int) -> dict[str, list[float]]:
    """Return the held-out loss of every arm, a value a seed, after about so many tokens of training."""
    names = [(name, seed) for seed in range(seeds) for name in ARMS]
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver"), max_tasks_per_child=1) as pool:
        losses = pool.map(_measure, [folder] * len(names), *zip(*names, strict=True), [tokens] * len(names))
        found: dict[str, list[float]] = {name: [] for name in ARMS}
        for (name, seed), loss in zip(names, losses, strict=True):
            found[name].append(loss)
            print(f"loss: {name}, seed {seed}: {loss:.3f}", file=sys.stderr, flush=True)
    return found


def _measure(folder: Path, name: str, seed: int, tokens: int) -> float:
    import torch

    from graftline.learning.loop import train
    from graftline.learning.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    arm, data = ARMS[name], Data(folder, SHAPE)
    if isinstance(arm, TrainerArm):
        return _trainer_loss(arm, data, seed, tokens)
    objective = language_model(data, "bfloat16", seed=seed)
    steps = math.ceil(tokens / BATCH_TOKENS)
    train(pretraining_run(objective, data, steps=steps, rates=arm, after_step=_nothing, seed=seed))
    return objective.held_out_loss(data.documents().held_out_batches(BATCH_TOKENS))


def _nothing(units: int) -> None:
    pass


def _trainer_loss(arm: TrainerArm, data: Data, seed: int, tokens: int) -> float:
    """Return the lower of the losses on documents and on blocks, for blocks are what this model has seen."""
    recipe = pretraining(data, "grouped", seed=seed)
    steps = math.ceil(tokens / (arm.batch * LENGTH))
    run_trainer(recipe, batch=arm.batch, dtype="float32", steps=steps, after_step=_nothing, rate=arm.rate, seed=seed)
    objective = language_model(data, "float32")
    objective.model.load_state_dict(recipe.model.state_dict())
    documents = data.documents()
    return min(
        objective.held_out_loss(documents.held_out_batches(BATCH_TOKENS)),
        objective.held_out_loss(_held_out_blocks(documents)),
    )


def _held_out_blocks(documents: Documents) -> list[Packed]:
    """Return the held-out documents end to end, in blocks as the Trainer saw them."""
    blocks = grouped(documents, documents.held_out)
    parts = np.array_split(np.arange(len(blocks)), math.ceil(blocks.size / BATCH_TOKENS))
    return [pack(blocks[part].reshape(-1), np.full(len(part), LENGTH), part) for part in parts]


def print_losses(losses: dict[str, Sequence[float]] | dict[str, list[float]], tokens: int) -> None:
    """Print each arm's mean and its values."""
    from rich.console import Console
    from rich.table import Table

    table = Table("arm", "mean", "seeds", title=f"held-out masked-LM loss after {tokens:,} tokens, {SHAPE}")
    for name, values in losses.items():
        table.add_row(name, f"{statistics.fmean(values):.3f}", ", ".join(f"{value:.3f}" for value in values))
    Console(soft_wrap=True, highlight=False).print(table)
