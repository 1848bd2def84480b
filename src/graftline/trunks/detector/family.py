"""Take a public detector as a trunk: its files are checked and copied; nothing is learned before labels are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.learning.loop import Run
from graftline.trunks import write_config
from graftline.trunks.detector.rootstock import open_checkpoint
from graftline.trunks.detector.trunk import KIND, DetectorTrunk
from graftline.trunks.rootstock import Rootstock
from graftline.trunks.training import Family, Planned, Training, start_of
from graftline.values.image import ImageColumn

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams


class Detectors(Family):
    plural: ClassVar[str] = "images"

    sees: ClassVar = (ImageColumn,)

    def check(self, schema: Schema, params: PretrainParams) -> None:
        schema.only(ImageColumn)
        if params.epochs:
            raise InputError(
                "pretrain.epochs", f"{params.epochs:g} on a detector_rootstock", expected="0: it is taken as it is",
                fix="set pretrain.epochs to 0",
            )  # fmt: skip

    def environment(self, params: PretrainParams) -> dict[str, str]:
        return {}

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        yield _training(params, schema, start_of(params, context))

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        _training(params, sample.schema, start_of(params)).write(trunk)
        yield from ()  # there is no step


def _training(params: PretrainParams, schema: Schema, start: Rootstock | None) -> Training:
    """Return the training of no step that writes the checkpoint as a trunk."""
    assert start is not None  # there is no new detector
    trunk = open_checkpoint(start.folder, schema.only(ImageColumn))
    run = Run(trunk, [], lambda step: torch.zeros(()), steps=0, warmup=0)
    return Training(run, params.batch, "images", partial(_write, trunk=trunk))


def _write(folder: Path, trunk: DetectorTrunk) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    trunk.save_alone(folder)
    write_config(folder, KIND, trunk.config(), {})
    return {"steps": 0}


FAMILY = Detectors()
