"""Average precision, for pairs of two classes: how well the pairs of the second one are ranked above the others."""

from __future__ import annotations

import numpy as np

from graftline.problems.scores import precision_rows
from graftline.score import Floats, Integers, RowStatistics, Score

AVERAGE_PRECISION = Score("average_precision", "average precision of the second class")


def ranked_pairs(rows: Integers, labels: Integers, probabilities: Floats) -> RowStatistics:
    """Return what average precision needs of pairs with one label each; NaN if there are not two classes."""
    second = [-1, 1] if probabilities.shape[1] == 2 else np.full(probabilities.shape[1], -1)
    return precision_rows(AVERAGE_PRECISION, rows, labels[:, None] == second, probabilities)
