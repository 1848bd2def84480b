"""Detectors for heads on images, of which detection alone takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from graftline.errors import InputError
from graftline.trunks.detector.trunk import DetectorTrunk, load_trunk, only_detects
from graftline.trunks.image_objective import ImageObjective


class DetectorImages:
    """An `images.ImageFamily`."""

    trunk: ClassVar = DetectorTrunk

    def load(self, folder: Path, config: dict[str, Any], *, weights: bool) -> DetectorTrunk:
        return load_trunk(folder, config, weights=weights)

    def objective(self, params: dict[str, Any], trunk: DetectorTrunk, dtype: str) -> ImageObjective:
        raise InputError(
            "finetune.joint_weight", "a trunk that is a public detector, which no objective made", expected="0",
            fix="leave joint_weight out",
        )  # fmt: skip

    def restore(self, folder: Path, config: dict[str, Any], outputs: int) -> tuple[DetectorTrunk, nn.Linear]:
        raise only_detects()

    def restore_alone(self, folder: Path, config: dict[str, Any]) -> DetectorTrunk:
        return load_trunk(folder, config, weights=True, fix="run finetune again")


IMAGES = DetectorImages()
