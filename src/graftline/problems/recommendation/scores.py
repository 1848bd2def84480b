"""How good rankings of items are; without torch, like all that the gate names.

All are means over users, and each ranks every item that the user does not have yet: rankings of a few sampled items
order models otherwise than rankings of all (W. Krichene and S. Rendle, "On sampled metrics for item recommendation",
KDD 2020).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftline.score import Floats, Integers, RowStatistics, Score, ratio

TOP, REACH = 10, 20
"""How far down NDCG and recall look."""
NDCG = Score("ndcg", f"NDCG@{TOP}", ratio)
RECALL = Score("recall", f"recall@{REACH}", ratio)
WARM = Score("warm_ndcg", f"NDCG@{TOP} of items that train shows, among themselves", ratio)
COLD = Score("cold_ndcg", f"NDCG@{TOP} of items that train never shows, among themselves", ratio)
DEBIASED = Score("debiased_ndcg", f"NDCG@{TOP}, rare items weighing more", ratio)
SCORES = (NDCG, RECALL, WARM, COLD, DEBIASED)


def discounted(ranks: Integers) -> Floats:
    """Return what a held-out item adds at each rank, from 0: 1 / log2(rank + 2) in the first ten places, else 0.

    K. Järvelin and J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20 (2002).
    """
    found: Floats = np.where((ranks >= 0) & (ranks < TOP), 1 / np.log2(np.maximum(ranks, 0) + 2.0), 0.0)
    return found


def ndcg_rows(
    score: Score, rows: Integers, of: Integers, ranks: Integers, weights: Floats | None = None
) -> RowStatistics:
    """Return (NDCG, 1) of each user with a held-out item, and (0, 0) of the others.

    Args:
        score: that is measured.
        rows: (users,) their rows.
        of: (m,) whose each held-out item is: the place in `rows`.
        ranks: (m,) its rank, from 0; -1 if it cannot be ranked.
        weights: (m,) what it counts; all alike without. The ideal ranking has the heaviest first.
    """
    given = np.ones(len(of)) if weights is None else weights
    gain = np.bincount(of, given * discounted(ranks), len(rows))
    order = np.lexsort((-given, of))
    place = np.arange(len(of)) - np.searchsorted(of[order], of[order])
    ideal = np.bincount(of[order], given[order] * discounted(place), len(rows))
    known = ideal > 0
    return RowStatistics.of_units(score, rows, [np.where(known, gain / np.where(known, ideal, 1), 0.0), known])


def recall_rows(rows: Integers, of: Integers, ranks: Integers) -> RowStatistics:
    """Return (share of the held-out items in the first twenty places, 1) of each user: of twenty at most."""
    hits = np.bincount(of, (ranks >= 0) & (ranks < REACH), len(rows))
    most: NDArray[np.int64] = np.minimum(np.bincount(of, minlength=len(rows)), REACH)
    return RowStatistics.of_units(RECALL, rows, [hits / np.maximum(most, 1), (most > 0) * 1.0])
