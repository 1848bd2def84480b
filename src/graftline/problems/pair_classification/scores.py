"""Average precision, for pairs of two classes: how well the pairs of the second one are ranked above the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graftline.problems.scores import Ranked
from graftline.score import Floats, Integers, RowStatistics, Score

AVERAGE_PRECISION = Score("average_precision", "average precision of the second class")


@dataclass(frozen=True, eq=False)
class RankedPairs(Ranked):
    """The precision at each pair of the second class, by falling probability, and its mean: a value of the rows drawn.

    The sum of precision times the rise of recall, without interpolation, as scikit-learn's average_precision_score
    takes it; pairs of one probability are one step. Not defined (NaN) for more than two classes, or without a pair
    of the second one.
    """

    def _values(self, weights: Floats) -> Floats:
        if self.statistics.shape[1] != 2:
            return np.full(len(weights), np.nan)
        order = np.argsort(-self.statistics[:, 1], kind="stable")
        probabilities, drawn = self.statistics[order, 1], weights[:, order]
        ends = np.flatnonzero(np.r_[probabilities[1:] != probabilities[:-1], True])
        found = (drawn * (self.labels[order] == 1)).cumsum(axis=1)[:, ends]
        taken = drawn.cumsum(axis=1)[:, ends]
        precision = found / np.where(taken > 0, taken, 1)
        rise = np.diff(found, axis=1, prepend=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean: Floats = (precision * rise).sum(axis=1) / found[:, -1]
        return mean


def ranked_pairs(rows: Integers, labels: Integers, probabilities: Floats) -> RowStatistics:
    """Return what average precision needs of rows with one label each."""
    order = np.argsort(rows, kind="stable")
    return RankedPairs(AVERAGE_PRECISION, rows[order], probabilities[order].astype(np.float64), labels[order])
