"""Parameters of the problem `text_regression`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.regression_parameters import RegressionParams
from graftline.problems.text_parameters import TextHeadParams


class TextRegressionParams(RegressionParams, TextHeadParams):
    """Parameters of the head `text_regression`."""

    name: Literal["text_regression"] = "text_regression"
    pooling: Literal["mean", "cls"] = "mean"
    """How a ModernBERT document becomes one vector: the mean of its tokens, or the first one. BERT takes the
    first, a decoder the last, whatever this says: transformers' classes offer no choice."""
