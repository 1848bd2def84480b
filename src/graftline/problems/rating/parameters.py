"""Parameters of the problem `rating`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.learning.parameters import Precision
from graftline.problems.rating.scores import SCORES
from graftline.problems.regression_parameters import RegressionParams


class RatingParams(RegressionParams):
    """Parameters of the head `rating`."""

    scores = SCORES  # type: ignore[assignment]  # one more than its base has

    name: Literal["rating"] = "rating"
    hide_ratio: float = Field(default=0.4, ge=0.1, lt=1)
    """Largest share of a user's ratings that is hidden in a step and told from the others, a tenth at least; how much
    is drawn anew each time, from a tenth on, one rating at least."""
    forget: float = Field(default=0.1, ge=0, lt=1)
    """Share of items that a step takes for new ones: it leaves out their own vectors and what others said of them. Only
    with words."""
    top: int = Field(default=10, ge=1, le=1000)
    """How many items `predict` names to whom it is not said which are asked for: those of the highest ratings."""
    precision: Precision = "auto"
    """Arithmetic of the trunk in training and in the lift's answers; auto is bfloat16 on a GPU that computes in it. The
    head and the weights stay float32, and so does what a released model answers."""
