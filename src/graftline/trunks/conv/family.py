"""Learn convolutional trunks from unlabelled images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from graftline.dataset import UNLABELLED, Schema
from graftline.durable import write_new
from graftline.learning.device import device
from graftline.trunks import WEIGHTS, image_training, write_config
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ConvParams, ImageObjectiveParams
from graftline.trunks.conv.trunk import KIND, ConvTrunk
from graftline.trunks.image_pool import Pool, read_pool
from graftline.trunks.image_training import steps_for
from graftline.trunks.training import Family, Planned, Training
from graftline.values.image import ImageColumn

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams


class Convolutional(Family):
    plural: ClassVar[str] = "images"

    sees: ClassVar = (ImageColumn,)

    narrow_on_cpu: ClassVar = ConvTrunk.narrow_on_cpu

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        yield training(read_pool(context.paths["dataset"], params.objective), params, schema)

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        made = training(read_pool(sample.folder), params, sample.schema)
        made.write(trunk)
        steps = steps_for(params, sample.rows[UNLABELLED])
        yield Planned(made, params.batch, None, steps, params.batch)


def training(pool: Pool, params: PretrainParams, schema: Schema) -> Training:
    """Return the training of one trunk on images."""
    assert isinstance(params.trunk, ConvParams) and isinstance(params.objective, ImageObjectiveParams)
    image = schema.only(ImageColumn)
    trunk = ConvTrunk(params.trunk, image.shape, image.channels)
    objective = build_objective(trunk, params.objective, FAMILY.arithmetic(params)).to(device())
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    return image_training.training(pool, params, objective, [optimizer], partial(_write, params=params, trunk=trunk))


def _write(folder: Path, params: PretrainParams, trunk: ConvTrunk) -> None:
    from safetensors.torch import save

    write_new(folder / WEIGHTS, save(trunk.state_dict()))
    write_config(folder, KIND, trunk.config(), params.objective.model_dump(mode="json"))


FAMILY = Convolutional()
