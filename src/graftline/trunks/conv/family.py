"""Learn convolutional trunks from unlabelled images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from graftline.dataset import UNLABELLED, Schema
from graftline.durable import write_new
from graftline.learning.device import device
from graftline.learning.distributed import world
from graftline.learning.loop import Run
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import batch_indices
from graftline.trunks import WEIGHTS, write_config
from graftline.trunks.conv.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ConvParams, ImageObjectiveParams
from graftline.trunks.conv.plots import reconstructions
from graftline.trunks.conv.reconstruction import Pictures, Reconstruction
from graftline.trunks.conv.trunk import KIND, ConvTrunk
from graftline.trunks.training import Planned, Training
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels
from graftline.values.splits import read_images

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams

_SHOWN = 10


class Convolutional:
    """A `training.Family`."""

    loss_unit: ClassVar[str] = "squared error a pixel"
    plural: ClassVar[str] = "images"

    sees: ClassVar = (ImageColumn,)

    def check(self, schema: Schema, params: PretrainParams) -> None:
        schema.only(ImageColumn)

    def environment(self, params: PretrainParams) -> dict[str, str]:
        return {"dtype": _arithmetic(params)}

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        yield training(_pixels(context.paths["dataset"]), params, schema)

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        made = training(_pixels(sample.folder), params, sample.schema)
        made.write(trunk)
        steps = _steps(params, sample.rows[UNLABELLED])
        yield Planned(made, params.batch, None, steps, params.batch)


def _pixels(dataset: Path) -> Pixels:
    return read_images(dataset, UNLABELLED).pixels


def training(pixels: Pixels, params: PretrainParams, schema: Schema) -> Training:
    """Return the training of one trunk on images."""
    assert isinstance(params.trunk, ConvParams) and isinstance(params.objective, ImageObjectiveParams)
    image = schema.only(ImageColumn)
    trunk = ConvTrunk(params.trunk, image.shape, image.channels)
    objective = build_objective(trunk, params.objective, _arithmetic(params)).to(device())
    part = world()

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return objective.loss(torch.from_numpy(pixels[chosen]), params.seed, step, part)

    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    run = Run(objective, optimizer, loss, _steps(params, len(pixels)), params.warmup_steps, addends=True)

    def write(folder: Path) -> dict[str, float]:
        shown = np.arange(len(pixels))[:: max(1, len(pixels) // _SHOWN)][:_SHOWN]
        _write(folder, params, objective, torch.from_numpy(pixels[shown]))
        return {"images": len(pixels), "steps": run.steps}

    return Training(run, params.batch, "images", write)


def _arithmetic(params: PretrainParams) -> str:
    return arithmetic(params.precision, narrow_on_cpu=False)


def _steps(params: PretrainParams, images: int) -> int:
    return max(1, int(params.epochs * images / params.batch))


def _write(folder: Path, params: PretrainParams, objective: Reconstruction, examples: torch.Tensor) -> None:
    from safetensors.torch import save

    write_new(folder / WEIGHTS, save(objective.trunk.state_dict()))
    write_new(folder / OBJECTIVE_WEIGHTS, save(objective.decoder.state_dict()))
    write_config(folder, KIND, objective.trunk.config(), params.objective.model_dump(mode="json"))
    training = objective.training
    objective.eval()
    with torch.no_grad():
        pictures = (images.cpu() for images in objective.pictures(examples, params.seed, 0))
        reconstructions(Pictures(*pictures), folder / "reconstructions.png")
    objective.train(training)


FAMILY = Convolutional()
