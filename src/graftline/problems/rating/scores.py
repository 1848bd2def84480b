"""How good told ratings are; without torch, like all that the gate names.

What is drawn anew for an interval are users, each with all held-out ratings. R2, the primary score, is of all of them
together (`regression_parameters` says why): 0 is what their mean would get.
"""

from __future__ import annotations

import numpy as np

from graftline.problems.regression_parameters import COVERAGE, MAE, R2, RMSE, WIDTH
from graftline.score import Floats, Integers, RowStatistics, Score, ratio

ORDER = Score("order", "share of a user's pairs of ratings in the right order", ratio)
SCORES = (R2, MAE, RMSE, ORDER, COVERAGE, WIDTH)


def order_rows(rows: Integers, ratings: Floats, predicted: Floats) -> RowStatistics:
    """Return (pairs in the right order, pairs) of each user: of held-out items with different ratings, ties half.

    Harrell's concordance (F. Harrell et al., JAMA 247 (1982)) within a user. The arrays are (m,) by rating.
    """
    known, place = np.unique(rows, return_inverse=True)
    found = np.zeros((len(known), 2))
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=len(known)))
    for user, mine in enumerate(np.split(order, ends[:-1])):
        actual, told = (np.sign(values[mine][:, None] - values[mine]) for values in (ratings, predicted))
        pairs = actual > 0
        found[user] = (0.5 * (1 + told))[pairs].sum(), pairs.sum()
    return RowStatistics(ORDER, known, found)
