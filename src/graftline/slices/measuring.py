"""The score of slices and the differences between groups, each with an interval that heeds how many were looked at.

Bonferroni's correction: of k intervals at 1 - 0.05 / k all hold at once in 95 of 100 data sets. Holm's way, and that of
Benjamini and Hochberg, sort tests and give no intervals of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graftline.score import CONFIDENCE, Estimate, Floats, RowStatistics, Score, ends, exact_reach, ratio
from graftline.slices.conditions import Sets

OPPORTUNITY, PARITY = GAPS = ("equal opportunity", "demographic parity")


def gap_metric(column: str, kind: str) -> str:
    """Return the name of a gap's figure in metrics.json."""
    return f"slices.{column}.{kind.replace(' ', '_')}"


@dataclass(frozen=True)
class Judged:
    """A slice, and its score against that of all other rows."""

    name: str
    origin: str
    """Why it was looked at."""
    rows: int
    value: Estimate | None = None
    """None of a slice that is too small to judge, or where the score is not defined."""
    difference: Estimate | None = None
    """Its score less that of the other rows."""
    worse: bool | None = None
    """Whether it is surely worse than the others; None if it is surely neither worse nor better."""
    least: int = 0

    @property
    def verdict(self) -> str:
        if self.value is None:
            small = self.rows < self.least
            return f"too small to judge: fewer than {self.least} rows" if small else "the score is not defined on it"
        if self.difference is None or self.worse is None:
            return "no difference is sure"
        return "worse than the other rows" if self.worse else "better than the other rows"

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "least"} | {"verdict": self.verdict}


def judge(
    measured: RowStatistics, names: Sequence[tuple[str, str]], members: Sets, least: int, *, resamples: int, seed: int
) -> list[Judged]:
    """Return the slices' scores, corrected for how many are large enough to be judged.

    Args:
        measured: the score of n rows; a sum of rows tells it.
        names: s names, and why each was looked at.
        members: (n, s) whether a row is in a slice.
        least: rows below which a slice is not judged.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    sizes = members.sum(axis=0)
    chosen = np.flatnonzero(sizes >= least)
    found = {number: Judged(*names[number], int(sizes[number]), least=least) for number in range(len(names))}
    if len(chosen):
        looks = 2 * len(chosen)  # at a slice's value, and at its difference to the others
        values, differences = _estimates(measured, members[:, chosen], looks, resamples, seed)
        for number, value, difference in zip(chosen.tolist(), values, differences, strict=True):
            sure = difference.finite and (difference.low > 0 or difference.high < 0)
            found[number] = Judged(
                *names[number], int(sizes[number]), value if value.finite else None,
                difference if difference.finite else None,
                (measured.score.gain(difference.value, 0.0) < 0) if sure else None, least,
            )  # fmt: skip
    return list(found.values())


def _estimates(
    measured: RowStatistics, members: Sets, looks: int, resamples: int, seed: int
) -> tuple[list[Estimate], list[Estimate]]:
    """Return each slice's value, and by how much it differs from that of the other rows."""
    score, weights = measured.score, np.ones(len(measured.rows)) if measured.weights is None else measured.weights
    assert score.value is not None
    of_value = score.value
    single = measured.statistics.astype(np.float64) * weights[:, None]
    (rows, width), slices = single.shape, members.shape[1]
    inside = (members[:, :, None] * single[:, None]).reshape(rows, -1)
    both = RowStatistics(score, measured.rows, np.concatenate([single, inside], axis=1))

    def values(sums: Floats) -> Floats:
        all_, mine = sums[:, None, :width], sums[:, width:].reshape(len(sums), slices, width)
        one = of_value(mine)
        found: Floats = np.concatenate([one, one - of_value(all_ - mine)], axis=1)
        return found

    confidence = 1 - (1 - CONFIDENCE) / looks
    low, high = ends(both, values, resamples=resamples, seed=seed, confidence=confidence)
    (middle,) = values(both.statistics.sum(axis=0, keepdims=True))
    if score.share and of_value is ratio:
        counted = members * weights[:, None] * (single[:, 1:] != 0)
        effective = counted.sum(axis=0) ** 2 / np.maximum(np.square(counted).sum(axis=0), 1e-300)
        reach = exact_reach(effective, confidence)
        agree = (low == high)[:slices] & (low[:slices] == middle[:slices])
        all_right = np.where(agree & (middle[:slices] == score.highest), reach, 0)
        all_wrong = np.where(agree & (middle[:slices] == score.lowest), reach, 0)
        # All right in every resample: neither its value nor its difference would vary enough.
        low -= np.tile(all_right, 2)
        high += np.tile(all_wrong, 2)
    found = [Estimate(*map(float, three)) for three in zip(middle, low, high, strict=True)]
    return found[:slices], found[slices:]


@dataclass(frozen=True)
class Gap:
    """The largest difference between two groups of a column, over all classes."""

    column: str
    kind: str
    """OPPORTUNITY: how many of a class are told to be of it. PARITY: how many of all are."""
    label: str
    """The class."""
    most: str
    """The group where it is most."""
    least: str
    difference: Estimate
    groups: dict[str, float]
    """The rate in each group that is large enough."""

    @property
    def sure(self) -> bool:
        return self.difference.low > 0

    @property
    def metric(self) -> str:
        return gap_metric(self.column, self.kind)


def gaps(
    column: str, groups: Sequence[str], members: Sets, counts: RowStatistics, classes: Sequence[str], least: int, *,
    resamples: int, seed: int,
) -> list[Gap]:  # fmt: skip
    """Return the largest gap of each kind between groups: M. Hardt, E. Price, N. Srebro, "Equality of opportunity in
    supervised learning", NeurIPS 2016.

    Its interval is corrected for all classes and all pairs of groups, of which it is the largest.

    Args:
        column: whose values the groups are.
        groups: g names.
        members: (n, g).
        counts: n rows' right, actual and predicted units of each class, (n, 3 * classes).
        classes: their names.
        least: units of a group, and of a class in it, below which a rate is not judged.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    weights = np.ones(len(counts.rows)) if counts.weights is None else counts.weights
    right, actual, predicted = np.split(counts.statistics.astype(np.float64), 3, axis=1)
    one_class = (actual.sum(axis=1) == predicted.sum(axis=1)).all()
    units = actual.sum(axis=1) if one_class else np.ones(len(counts.rows))  # of sets of classes a row is one
    every = np.broadcast_to(units[:, None], actual.shape)
    found = []
    for kind, hits, of in ((OPPORTUNITY, right, actual), (PARITY, predicted, every)):
        support = members.T.astype(np.float64) @ of  # (g, classes)
        rates = _rates(members * weights[:, None], hits, of)
        rates[support < least] = np.nan
        wide = [_spread(rates[:, label]) for label in range(len(classes))]
        label = int(np.argmax(wide))
        if wide[label] < 0:
            continue
        high, low = int(np.nanargmax(rates[:, label])), int(np.nanargmin(rates[:, label]))
        looks = sum(math.comb(int(np.isfinite(rates[:, number]).sum()), 2) for number in range(len(classes)))
        columns = [
            part[:, label] * members[:, group] * weights for group in (high, low) for part in (hits, of)
        ]  # fmt: skip
        both = RowStatistics(_RATE, counts.rows, np.stack(columns, axis=1))
        confidence = 1 - (1 - CONFIDENCE) / looks
        start, stop = ends(both, _difference, resamples=resamples, seed=seed, confidence=confidence)
        for group in (high, low):  # a rate of 0 or 1 is the same in every resample
            if rates[group, label] in (0.0, 1.0):
                counted = of[:, label] * members[:, group] * weights
                effective = np.array([counted.sum() ** 2 / max(np.square(counted).sum(), 1e-300)])
                reach = float(exact_reach(effective, confidence)[0])
                if (rates[group, label] == 1.0) == (group == high):
                    start = start - reach
                else:
                    stop = stop + reach
        judged = np.flatnonzero(np.isfinite(rates[:, label])).tolist()
        named = {groups[number]: float(rates[number, label]) for number in judged}
        estimate = Estimate(wide[label], float(start[0]), float(stop[0]))
        found.append(Gap(column, kind, classes[label], groups[high], groups[low], estimate, named))
    return found


_RATE = Score("rate", "rate", ratio)


def _rates(weighted: Floats, hits: Floats, of: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (weighted.T @ hits) / (weighted.T @ of)
    return found


def _spread(rates: Floats) -> float:
    """Return the difference of the largest and the smallest rate; -1 where fewer than two groups have one."""
    known = rates[np.isfinite(rates)]
    return float(known.max() - known.min()) if len(known) > 1 else -1.0


def _difference(sums: Floats) -> Floats:
    return (ratio(sums[:, :2]) - ratio(sums[:, 2:]))[:, None]
