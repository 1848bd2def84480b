"""Telling rows that a model learned from and rows that it did not, by how sure it is of what is right.

By a threshold on the loss: S. Yeom et al., "Privacy risk in machine learning", CSF 2018. With shadow models, which say
how hard a row is for a model that did not learn from it: L. Watson et al., arXiv:2111.08440, which is the offline
likelihood ratio of N. Carlini et al., arXiv:2112.03570, with one variance for all rows, as they advise for few models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graftline.score import Estimate, Floats

FALSE_ALARMS = 0.01
_RESAMPLES = 1000
_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class Attacked:
    """How well one attack tells members."""

    auc: Estimate
    """Probability that a member has the higher value than another row, ties counted half; 0.5 is a coin."""
    tpr: Estimate
    """Share of the members that are found where at most 1% of the others are taken for members."""
    members: int
    others: int


def attack(members: Floats, others: Floats, *, seed: int) -> Attacked:
    """Return how well a threshold tells members, of whom (m,) values should be higher than of (n,) others."""
    return Attacked(area(members, others), _found(members, others, seed), len(members), len(others))


def area(members: Floats, others: Floats) -> Estimate:
    """Return the area under the ROC curve, and its 95% interval by DeLong et al., Biometrics 44 (1988).

    Where everything is told apart that interval has no width, and the exact one of one side's rows stands; where all
    values are equal nothing is known of it.
    """
    m, n = len(members), len(others)
    both = _middle_ranks(np.concatenate([members, others]))
    above = (both[:m] - _middle_ranks(members)) / n  # of each member the share of others below it
    below = 1 - (both[m:] - _middle_ranks(others)) / m
    value = float(above.mean())
    deviation = float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    if deviation == 0 and value not in (0.0, 1.0):
        return Estimate(value, 0.0, 1.0)
    if deviation == 0:
        reach = 1 - 0.025 ** (1 / min(m, n))
        return Estimate(value, max(0.0, value - reach), min(1.0, value + reach))
    return Estimate(value, max(0.0, value - _NORMAL * deviation), min(1.0, value + _NORMAL * deviation))


def _middle_ranks(values: Floats) -> Floats:
    """Return each value's rank from 1; those that are equal share the middle of theirs."""
    order = np.sort(values)
    low, high = np.searchsorted(order, values, "left"), np.searchsorted(order, values, "right")
    ranks: Floats = (low + high + 1) / 2
    return ranks


def _found(members: Floats, others: Floats, seed: int) -> Estimate:
    """Return the share of members above the threshold of 1% of false alarms, and its interval by the bootstrap."""
    drawn = np.random.default_rng(seed)
    values = [_share(drawn.choice(members, len(members)), drawn.choice(others, len(others))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(_share(members, others), float(low), float(high))


def _share(members: Floats, others: Floats) -> float:
    allowed = int(FALSE_ALARMS * len(others))
    limit = np.partition(others, len(others) - 1 - allowed)[len(others) - 1 - allowed]
    return float((members > limit).mean())


def against_shadows(values: Floats, shadows: Floats) -> Floats:
    """Return (n,) by how much surer the model is than shadow models that did not learn from the row.

    Args:
        values: (n,) of the model.
        shadows: (models, n); NaN where a model learned from the row. A row that all learned from comes out as NaN.
    """
    known = np.isfinite(shadows)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, shadows, 0).sum(axis=0) / count
    found: Floats = np.where(count > 0, values - mean, np.nan)
    return found
