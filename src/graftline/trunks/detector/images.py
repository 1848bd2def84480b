"""Detectors for heads on images, of which detection alone takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from graftline.errors import InputError
from graftline.trunks.detector.trunk import AUTO, DetectorTrunk, build_network, only_detects, read_config
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.rootstock import load
from graftline.trunks.vision.trunk import Scale


class DetectorImages:
    """An `images.ImageFamily`."""

    trunk: ClassVar = DetectorTrunk

    def load(
        self, folder: Path, config: dict[str, Any], *, weights: bool, fix: str = "run pretrain again"
    ) -> DetectorTrunk:
        found = read_config(folder)
        network = load(folder, AUTO, lambda name: False, config=found, fix=fix) if weights else build_network(found)
        (height, width), (high, wide) = config["shape"], config["size"]
        shape, size = (int(height), int(width)), (int(high), int(wide))
        return DetectorTrunk(network, Scale.read(config), shape, size, int(config["resample"]))

    def objective(self, params: dict[str, Any], trunk: DetectorTrunk, dtype: str) -> ImageObjective:
        raise InputError(
            "finetune.joint_weight", "a trunk that is a public detector, which no objective made", expected="0",
            fix="leave joint_weight out",
        )  # fmt: skip

    def restore(self, folder: Path, config: dict[str, Any], outputs: int) -> tuple[DetectorTrunk, nn.Linear]:
        raise only_detects()

    def restore_alone(self, folder: Path, config: dict[str, Any]) -> DetectorTrunk:
        return self.load(folder, config, weights=True, fix="run finetune again")


IMAGES = DetectorImages()
