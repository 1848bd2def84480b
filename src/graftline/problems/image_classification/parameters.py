"""Parameters of the problem `image_classification`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.problems.deciding_parameters import DecidingParams
from graftline.problems.image_parameters import ImageHeadParams
from graftline.problems.scores import ONE_CLASS_A_ROW


class ImageClassificationParams(DecidingParams, ImageHeadParams):
    """Parameters of the head `image_classification`."""

    scores = ONE_CLASS_A_ROW
    explains = True
    odds = True
    private = True
    probes = True

    name: Literal["image_classification"] = "image_classification"
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""
