"""What the problems that tell numbers share: their scores and parameters; without torch, like all parameter models.

R2 is the primary score. It has no unit: a floor, a lift or a loss against the champion reads alike for grams and for
years, 0 is what the mean of the rows would get, and it can be compared over tasks. On the same rows it orders models as
the squared error does. MAE and RMSE are in the label's unit, for people.

Of several numbers a row each score is the mean over them, as scikit-learn's `multioutput="uniform_average"` takes it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from graftline.problems.scores import ProblemParams
from graftline.score import Floats, Integers, RowStatistics, Score, ratio

_NOTHING = 1e-12
"""Share of the mean square below which a variance is rounding: the numbers drawn are all equal."""


def _r2(sums: Floats) -> Floats:
    """Return 1 - residual / total sum of squares; NaN where the labels are all equal."""
    count, errors, labels, squares = _parts(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = squares - labels**2 / count
        explained = np.where(total > _NOTHING * squares, 1 - errors / total, np.nan)
    mean: Floats = explained.mean(axis=-1)
    return mean


def _rmse(sums: Floats) -> Floats:
    count, errors, _, _ = _parts(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: Floats = np.sqrt(errors / count).mean(axis=-1)
    return mean


def _parts(sums: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return rows, (..., 1), and of each number squared errors, labels and squared labels, (..., numbers) each."""
    errors, labels, squares = np.split(sums[..., 1:], 3, axis=-1)
    return sums[..., :1], errors, labels, squares


R2 = Score("r2", "share of the variance explained (R2)", _r2, lowest=-math.inf)
MAE = Score("mae", "mean absolute error (MAE)", ratio, higher=False, share=False)
RMSE = Score("rmse", "root mean squared error (RMSE)", _rmse, higher=False, share=False)
COVERAGE = Score("coverage", "share of the numbers inside their intervals (coverage)", ratio)
WIDTH = Score("interval_width", "mean width of the intervals", ratio, higher=False, share=False)


def squares_rows(score: Score, rows: Integers, labels: Floats, predicted: Floats) -> RowStatistics:
    """Return what R2 and RMSE need of (n, numbers) labels and predictions: a row adds (1, e * e, y, y * y).

    Labels should lie about 0 where R2 is asked for: the variance is a difference of sums.
    """
    columns = [np.ones(len(rows)), *((labels - predicted) ** 2).T, *labels.T, *(labels**2).T]
    return RowStatistics.of_units(score, rows, columns)


class RegressionParams(ProblemParams):
    """Parameters of the heads that tell numbers."""

    scores = (R2, MAE, RMSE, COVERAGE, WIDTH)

    intervals: Literal["conformal", "gaussian"] = "conformal"
    """How wide intervals are, by the errors on val: conformal takes the quantile of their sizes, whatever their
    distribution (Lei et al., 2018, arXiv:1604.04173); gaussian takes them for normal around 0, and is less ragged where
    val is small. Without labels held out (`labels_per_class`) there are no intervals."""
    coverage: float = Field(default=0.9, gt=0, lt=1)
    """Share of the numbers that should lie inside their intervals, above 0 and below 1."""
