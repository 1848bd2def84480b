"""Parameters of the problem `detection`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.problems.detection.scores import SCORES
from graftline.problems.image_parameters import ImageHeadParams


class DetectionParams(ImageHeadParams):
    """Parameters of the head `detection`."""

    scores = SCORES

    name: Literal["detection"] = "detection"
    stride: Literal[2, 4, 8, 16, 32] = 4
    """Pixels from one place where the head looks for the middle of an object to the next: at most half the shorter side
    of a small object. Twice the stride is a quarter of the work."""
    width: int = Field(default=64, ge=8, le=1024)
    """Channels of the head's layers; a multiple of 8."""
    prototypes: int = Field(default=0, ge=0, le=256)
    """Pictures of which each object's mask is a weighted sum (Bolya et al., 2019, arXiv:1904.02689), about 8 for
    objects of a few shapes; the labels must have masks then. 0 to learn no masks."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability from which on a box is an answer: of `predict`, recall, precision and masks; AP ranks all boxes.
    Null: the one of the largest F1 on val, at IoU 0.4; 0.3 where nothing is held out."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """IoU up to which two boxes of one class stay; of two that have more in common the less probable is dropped."""
    most: int = Field(default=100, ge=1, le=1000)
    """Boxes of an image, at most; 100 is what COCO's AP counts."""
