"""Convolutional trunks for heads on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter
from torch import nn

from graftline.trunks import WEIGHTS, load_weights
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ImageObjectiveParams
from graftline.trunks.conv.trunk import ConvTrunk, with_output
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.image_trunk import MODEL_WEIGHTS


class ConvImages:
    """An `images.ImageFamily`."""

    trunk: ClassVar = ConvTrunk

    def load(self, folder: Path, config: dict[str, Any], *, weights: bool) -> ConvTrunk:
        trunk = ConvTrunk.from_config(config)
        if weights:
            load_weights(trunk, folder / WEIGHTS, fix="run pretrain again")
        return trunk

    def objective(self, params: dict[str, Any], trunk: ConvTrunk, dtype: str) -> ImageObjective:
        chosen: ImageObjectiveParams = TypeAdapter(ImageObjectiveParams).validate_python(params)
        return build_objective(trunk, chosen, dtype)

    def restore(self, folder: Path, config: dict[str, Any], outputs: int) -> tuple[ConvTrunk, nn.Linear]:
        trunk = ConvTrunk.from_config(config)
        output = nn.Linear(trunk.width, outputs)
        load_weights(with_output(trunk, output), folder / MODEL_WEIGHTS, fix="run finetune again")
        return trunk, output

    def restore_alone(self, folder: Path, config: dict[str, Any]) -> ConvTrunk:
        trunk = ConvTrunk.from_config(config)
        load_weights(trunk, folder / MODEL_WEIGHTS, fix="run finetune again")
        return trunk


IMAGES = ConvImages()
