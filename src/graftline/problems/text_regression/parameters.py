"""Parameters of the problem `text_regression`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.regression_parameters import RegressionParams
from graftline.problems.text_parameters import PooledParams


class TextRegressionParams(RegressionParams, PooledParams):
    """Parameters of the head `text_regression`."""

    name: Literal["text_regression"] = "text_regression"
