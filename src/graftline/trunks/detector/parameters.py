"""The parameters of detectors; without torch, like all parameter models."""

from __future__ import annotations

from typing import ClassVar, Literal

from graftline.trunks.parameters import ObjectiveParams
from graftline.trunks.rootstock import MODEL_FILES, CheckpointParams


class DetectorRootstockParams(CheckpointParams):
    """A public detector of the DETR family, with the queries and layers that find its boxes: for the head detection."""

    family: ClassVar[str] = "detector"
    files: ClassVar[tuple[str, ...]] = (*MODEL_FILES, "preprocessor_config.json")

    name: Literal["detector_rootstock"] = "detector_rootstock"

    def check(self, objective: ObjectiveParams, where: str) -> None:
        """Accept any objective: a detector is taken as it is, and learns from none."""
