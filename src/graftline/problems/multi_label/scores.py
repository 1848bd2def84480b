"""What is measured of sets of classes, and each score's statistics of a row; without torch, for the gate names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.problems.scores import MACRO_F1
from graftline.score import Floats, Integers, RowStatistics, Score, ratio

MICRO_F1 = Score("micro_f1", "F1 of all labels (micro)", ratio)
MAP = Score("map", "mean average precision of the classes")
EXACT_MATCH = Score("exact_match", "share of sets that match exactly", ratio)
SCORES = (MICRO_F1, MACRO_F1, MAP, EXACT_MATCH)

_MAP_WORK = 2e8  # rows times classes times resamples: some seconds

Sets = NDArray[np.bool_]
"""(n, classes): whether each row is of each class."""


def micro_rows(rows: Integers, labels: Sets, predicted: Sets) -> RowStatistics:
    """Return (2 * right, actual + predicted) labels of each row: the ratio of their sums is 2PR / (P + R)."""
    right = (labels & predicted).sum(axis=1)
    return RowStatistics.of_units(MICRO_F1, rows, [2 * right, labels.sum(axis=1) + predicted.sum(axis=1)])


def exact_rows(rows: Integers, labels: Sets, predicted: Sets) -> RowStatistics:
    return RowStatistics.of_units(EXACT_MATCH, rows, [(labels == predicted).all(axis=1), np.ones(len(rows))])


def macro_rows(rows: Integers, labels: Sets, predicted: Sets) -> RowStatistics:
    """Return each row's right, actual and predicted labels of each class, (n, 3 * classes)."""
    order = np.argsort(rows, kind="stable")
    parts = [part[order].astype(np.float32) for part in (labels & predicted, labels, predicted)]
    return RowStatistics(MACRO_F1, rows[order], np.concatenate(parts, axis=1))


@dataclass(frozen=True, eq=False)
class Retrieved(RowStatistics):
    """The average precision of each class, and their mean: a value of the rows drawn, which no sum over rows tells.

    `statistics` are (n, classes) probabilities. The sum over thresholds of precision times what recall gains there,
    without interpolation, rows of one probability at once: as scikit-learn's average_precision_score. The mean is over
    the classes that have rows.
    """

    labels: Sets

    @property
    def most_resamples(self) -> int | None:
        return int(max(200, min(1000, _MAP_WORK / self.statistics.size)))

    def _values(self, weights: Floats) -> Floats:
        found = np.stack([self.average_precision(number, weights) for number in range(self.labels.shape[1])])
        known = np.isfinite(found)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(known, found, 0).sum(axis=0) / known.sum(axis=0)
        return mean

    def average_precision(self, number: int, weights: Floats) -> Floats:
        """Return a class's (b,) values on rows drawn `weights` (b, n) times; NaN where none drawn is of it."""
        order = np.argsort(-self.statistics[:, number], kind="stable")
        sorted_, drawn = self.statistics[order, number], weights[:, order]
        starts = np.flatnonzero(np.r_[True, sorted_[1:] != sorted_[:-1]])  # of rows of one probability
        gained = np.add.reduceat(drawn * self.labels[order, number], starts, axis=1)
        taken = np.add.reduceat(drawn, starts, axis=1).cumsum(axis=1)
        precision = gained.cumsum(axis=1) / np.where(taken > 0, taken, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = (gained * precision).sum(axis=1) / gained.sum(axis=1)
        return found


def retrieved_rows(rows: Integers, labels: Sets, probabilities: NDArray[Any]) -> Retrieved:
    """Return what the mean average precision needs of rows."""
    order = np.argsort(rows, kind="stable")
    return Retrieved(MAP, rows[order], probabilities[order].astype(np.float64), labels[order])


def best_threshold(labels: NDArray[np.bool_], probabilities: NDArray[Any]) -> float | None:
    """Return the threshold of one class with the largest F1 on (n,) rows; None where no row is of the class.

    Halfway between two neighbouring probabilities, so that rows like these stay on their side; the largest such one.
    Of probabilities that can be believed it is half the F1 that it reaches, far below 0.5 for a class that is hard to
    tell: Z. Lipton, C. Elkan, B. Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", ECML 2014.
    """
    if not labels.any():
        return None
    order = np.argsort(-probabilities, kind="stable")
    falling, right = probabilities[order].astype(np.float64), labels[order].cumsum()
    f1 = 2 * right / (np.arange(1, len(order) + 1) + right[-1])
    ends = np.r_[falling[1:] != falling[:-1], True]  # a threshold cannot part rows of one probability
    last = int(np.where(ends, f1, -1).argmax())
    below = falling[last + 1] if last + 1 < len(falling) else 0.0
    return float((falling[last] + below) / 2)
