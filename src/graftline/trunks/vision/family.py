"""Learn vision trunks from unlabelled images, from scratch or from a public checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftline.dataset import UNLABELLED, Schema
from graftline.errors import InputError
from graftline.learning.device import device
from graftline.learning.memory import keep_freed_memory
from graftline.trunks import image_training, write_config
from graftline.trunks.image_pool import Pool, read_pool
from graftline.trunks.image_training import steps_for
from graftline.trunks.rootstock import Rootstock
from graftline.trunks.training import Family, Planned, Training, optimizers_of, start_of
from graftline.trunks.vision.objectives import build_objective
from graftline.trunks.vision.parameters import VisionObjectiveParams, VisionParams, VitParams
from graftline.trunks.vision.rootstock import open_checkpoint
from graftline.trunks.vision.trunk import KIND, VisionTrunk, new_trunk
from graftline.values.image import ImageColumn

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams


class Vision(Family):
    plural: ClassVar[str] = "images"

    sees: ClassVar = (ImageColumn,)

    narrow_on_cpu: ClassVar = VisionTrunk.narrow_on_cpu

    def check(self, schema: Schema, params: PretrainParams) -> None:
        image = schema.only(ImageColumn)
        if isinstance(params.trunk, VitParams) and any(side % params.trunk.patch for side in image.shape):
            height, width = image.shape
            raise InputError(
                "pretrain.trunk.patch",
                f"{params.trunk.patch} for images of {height} by {width} pixels",
                expected="a divisor of both",
            )

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        keep_freed_memory()
        start = start_of(params, context)
        yield training(read_pool(context.paths["dataset"], params.objective), params, _trunk(params, schema, start))

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        made = training(read_pool(sample.folder), params, _trunk(params, sample.schema, start_of(params)))
        made.write(trunk)
        yield Planned(made, params.batch, None, steps_for(params, sample.rows[UNLABELLED]), params.batch)


def _trunk(params: PretrainParams, schema: Schema, start: Rootstock | None) -> VisionTrunk:
    image = schema.only(ImageColumn)
    if start is not None:
        return open_checkpoint(start.folder, image)
    assert isinstance(params.trunk, VisionParams)
    return new_trunk(params.trunk, image)


def training(pool: Pool, params: PretrainParams, trunk: VisionTrunk) -> Training:
    """Return the training of a trunk on images."""
    assert isinstance(params.objective, VisionObjectiveParams)
    objective = build_objective(trunk, params.objective, FAMILY.arithmetic(params)).to(device())
    optimizers = optimizers_of(objective, params, set())
    return image_training.training(pool, params, objective, optimizers, partial(_write, params=params, trunk=trunk))


def _write(folder: Path, params: PretrainParams, trunk: VisionTrunk) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trunk.save(folder)
    write_config(folder, KIND, trunk.config(), params.objective.model_dump(mode="json"))


FAMILY = Vision()
