"""Parameters of the problem `recommendation`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.learning.parameters import Precision
from graftline.problems.recommendation.scores import SCORES
from graftline.problems.scores import ProblemParams


class RecommendationParams(ProblemParams):
    """Parameters of the head `recommendation`."""

    scores = SCORES

    name: Literal["recommendation"] = "recommendation"
    top: int = Field(default=10, ge=1, le=1000)
    """How many items `predict` names."""
    precision: Precision = "auto"
    """Arithmetic of training and of the lift's answers; auto is bfloat16 on a GPU that computes in it. The
    weights stay float32, and so does what a released model answers."""
