"""Vision trunks for heads on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter
from torch import nn

from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.vision.objectives import build_objective
from graftline.trunks.vision.parameters import VisionObjectiveParams
from graftline.trunks.vision.trunk import VisionTrunk, load_trunk, load_with_output


class VisionImages:
    """An `images.ImageFamily`."""

    trunk: ClassVar = VisionTrunk

    def load(self, folder: Path, config: dict[str, Any], *, weights: bool) -> VisionTrunk:
        return load_trunk(folder, config, weights=weights)

    def objective(self, params: dict[str, Any], trunk: VisionTrunk, dtype: str) -> ImageObjective:
        chosen: VisionObjectiveParams = TypeAdapter(VisionObjectiveParams).validate_python(params)
        return build_objective(trunk, chosen, dtype)

    def restore(self, folder: Path, config: dict[str, Any], outputs: int) -> tuple[VisionTrunk, nn.Linear]:
        return load_with_output(folder, config, outputs)

    def restore_alone(self, folder: Path, config: dict[str, Any]) -> VisionTrunk:
        return load_trunk(folder, config, weights=True, fix="run finetune again")


IMAGES = VisionImages()
