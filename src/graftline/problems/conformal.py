"""Promises that held-out rows give about new ones, and how far what is found may lie from what was promised.

Rows of one group (a speaker's clips, one emoji by three designers) come together: what held-out rows say of a row of a
new group is what their groups say. Y. Lee, R. Barber, R. Willett, "Distribution-free inference with hierarchical
data", arXiv:2306.06342; with one row a group it is split conformal prediction: A. Angelopoulos and S. Bates,
arXiv:2107.07511, section 1.
"""

from __future__ import annotations

import math

import numpy as np

from graftline.score import CONFIDENCE, Floats, Integers, RowStatistics


def limits(scores: Floats, coverages: Floats, weights: Floats | None = None, groups: Integers | None = None) -> Floats:
    """Return (c,): what a new row's score reaches with the chance of each coverage or more; -inf where n is too small.

    Of n exchangeable rows and a new one, the new one's score is at least the k-th largest of the n with chance
    k / (n + 1) or more: k is the least number for which that is the coverage. Rows of other weights count as so many
    rows, the new one as one. With groups it is they that are exchangeable: each counts as one row, whatever its size,
    and the promise is about a row drawn from a new group.

    Args:
        scores: (n,), larger where a row is more as it should be.
        coverages: (c,), from 0 to 1.
        weights: (n,) how much each row counts; None where all count alike.
        groups: (n,) the number of each row's group; None where each row stands by itself.
    """
    count, share = len(scores), np.ones(len(scores)) if weights is None else weights
    if groups is not None:
        _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        count, share = len(sizes), share / sizes[place]
    order = np.argsort(-scores, kind="stable")
    counted = np.cumsum(share[order] / (share.sum() / count))
    places = np.searchsorted(counted, (count + 1) * coverages - 1e-9)
    found: Floats = np.where(places < len(scores), scores[order][np.minimum(places, len(scores) - 1)], -math.inf)
    return found


def by_group(kept: RowStatistics, groups: Integers, *, evenly: bool = False) -> RowStatistics:
    """Return what each group adds to a mean of rows; with `evenly` each group counts alike, whatever its size.

    Args:
        kept: (sum, how many) of each row.
        groups: (n,) the number of each of its rows' group.
    """
    _, first, place = np.unique(groups, return_index=True, return_inverse=True)
    sums: Floats = np.stack([np.bincount(place, column) for column in kept.weighed.T], axis=1).astype(np.float64)
    if evenly:
        sums = sums / np.bincount(place, kept.statistics[:, 1])[:, None]
    order = np.argsort(first)
    return RowStatistics(kept.score, kept.rows[first][order], sums[order])


def law(kept: RowStatistics, coverage: float, held_out: int) -> tuple[float, float]:
    """Return between what the share that keeps a promise lies in 95 of 100 draws of held-out rows and new ones.

    Of independent rows the number that does is beta-binomial (Angelopoulos and Bates, 3.2). Words of a sentence, or
    rows of a group, are right or wrong together: then it is the law of as many independent rows as would tell as much
    (L. Kish's design effect, "Survey sampling", 1965, 8.2).

    Args:
        kept: (sum that does, sum) of each of the rows or groups that are drawn.
        coverage: what was promised.
        held_out: how many rows or groups promised it.
    """
    from scipy.stats import betabinom

    rank = math.ceil((held_out + 1) * coverage - 1e-9)
    if rank > held_out:
        return 1.0, 1.0
    hits, of = kept.weighed.astype(np.float64).T
    share = hits.sum() / of.sum()
    variance = np.square(hits - share * of).sum() / of.sum() ** 2
    rows = share * (1 - share) / variance if variance > 0 else float(len(of))
    before, part, drawn = rows * held_out / len(of), rank / (held_out + 1), max(1, round(rows))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = betabinom.ppf(tails, drawn, part * (before + 1), (1 - part) * (before + 1)) / drawn
    return float(low), float(high)
