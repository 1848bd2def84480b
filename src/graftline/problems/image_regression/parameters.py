"""Parameters of the problem `image_regression`."""

from __future__ import annotations

from typing import Literal

from graftline.learning.parameters import Augmentation
from graftline.problems.image_parameters import ImageHeadParams
from graftline.problems.regression_parameters import RegressionParams


class ImageRegressionParams(RegressionParams, ImageHeadParams):
    """Parameters of the head `image_regression`."""

    name: Literal["image_regression"] = "image_regression"
    augmentation: Augmentation = Augmentation(shift=0)
    """How training images are warped; not at all unless asked for, since a warp may change the number that is to be
    told: an angle, a place, a size."""
