"""Parameters of the problem `image_classification`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.learning.parameters import Augmentation
from graftline.problems.scores import ONE_CLASS_A_ROW, ProblemParams


class ImageClassificationParams(ProblemParams):
    """Parameters of the head `image_classification`."""

    scores = ONE_CLASS_A_ROW

    name: Literal["image_classification"] = "image_classification"
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""
    augmentation: Augmentation = Augmentation()
    """How training images are warped."""
