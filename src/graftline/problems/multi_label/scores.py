"""What is measured of sets of classes, and each score's statistics of a row; without torch, for the gate names them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.problems.scores import MACRO_F1, Sets
from graftline.score import Integers, RowStatistics, Score, ratio

MICRO_F1 = Score("micro_f1", "F1 of all labels (micro)", ratio)
MAP = Score("map", "mean average precision of the classes")
EXACT_MATCH = Score("exact_match", "share of sets that match exactly", ratio)
SCORES = (MICRO_F1, MACRO_F1, MAP, EXACT_MATCH)


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
