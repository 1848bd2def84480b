"""How a trunk of images is trained, whatever its family: batches, steps, and what is written of its objective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from graftline.durable import write_new
from graftline.learning.distributed import world
from graftline.learning.loop import Run
from graftline.learning.randomness import batch_indices
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.image_pool import Pool
from graftline.trunks.training import Training

if TYPE_CHECKING:
    from graftline.tasks.pretrain import PretrainParams

OBJECTIVE_WEIGHTS = "objective.safetensors"
"""In a trunk's folder: the objective's own layers, so that in fine-tuning it goes on where pretraining ended."""
_SHOWN = 10


def training(
    pool: Pool,
    params: PretrainParams,
    objective: ImageObjective,
    optimizers: list[torch.optim.Optimizer],
    write_trunk: Callable[[Path], None],
) -> Training:
    """Return the training of an objective on images."""
    part = world()

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pool))
        return objective.loss_in(pool, chosen, params.seed, step, part)

    run = Run(objective, optimizers, loss, steps_for(params, len(pool)), params.warmup_steps, addends=True)

    def write(folder: Path) -> dict[str, float]:
        write_trunk(folder)
        shown = torch.arange(len(pool))[:: max(1, len(pool) // _SHOWN)][:_SHOWN]
        _write_objective(folder, objective, pool.images(shown), params.seed)
        return {"images": len(pool), "steps": run.steps}

    return Training(run, params.batch, "images", write)


def steps_for(params: PretrainParams, images: int) -> int:
    """Return the steps of a pretraining on so many images; none where a checkpoint is taken as it is."""
    return max(1, int(params.epochs * images / params.batch)) if params.epochs else 0


def _write_objective(folder: Path, objective: ImageObjective, examples: torch.Tensor, seed: int) -> None:
    from safetensors.torch import save

    write_new(folder / OBJECTIVE_WEIGHTS, save(objective.head.state_dict()))
    training = objective.training
    objective.eval()
    objective.draw(examples, seed, folder)
    objective.train(training)
