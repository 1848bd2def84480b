"""The statistics of an evaluation: pure functions of arrays, each with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
BINS = 15

Integers = NDArray[np.int64]
Floats = NDArray[np.floating]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """One class against the rest; every score is a fraction from 0 to 1."""

    support: int
    """Test rows that are of this class."""
    precision: float
    """Right among those predicted as this class; 0 if none is predicted so."""
    recall: float | None
    """Right among those of this class; None if the class has no rows."""
    f1: float
    """Harmonic mean of precision and recall; 0 if nothing of this class is right."""


@dataclass(frozen=True)
class Calibration:
    """Equal-width bins of confidence; bin i holds confidences in (i/bins, (i+1)/bins]. Arrays of (bins,)."""

    counts: Integers
    confidence: NDArray[np.float64]
    """Mean confidence in the bin; 0 where the bin is empty."""
    accuracy: NDArray[np.float64]
    """Share of right predictions in the bin; 0 where the bin is empty."""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of confidence and accuracy, weighted by the counts."""
        gaps = np.abs(self.confidence - self.accuracy) * self.counts
        return float(gaps.sum() / self.counts.sum())


def wilson(successes: int, trials: int) -> Estimate:
    """Return the rate and its 95% score interval.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    Unlike the normal approximation it stays inside 0 and 1 and keeps its coverage near 1.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    from scipy.special import ndtri

    z = float(ndtri((1 + CONFIDENCE) / 2))
    rate = successes / trials
    shrunk = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / shrunk
    half = z / shrunk * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would miss them
    high = 1.0 if successes == trials else centre + half
    return Estimate(rate, low, high)


def t_interval(values: list[float]) -> Estimate:
    """Return the mean and its 95% interval by Student's t with n - 1 degrees of freedom.

    Student (W. S. Gosset), "The probable error of a mean", Biometrika 6 (1908). On differences of pairs this
    is the paired t interval.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values: an interval needs at least 2")
    from scipy.special import stdtrit

    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * math.sqrt(variance / len(values))
    return Estimate(mean, mean - half, mean + half)


def paired_bootstrap(challenger: Booleans, champion: Booleans, *, resamples: int, seed: int) -> Estimate:
    """Return the difference in accuracy, challenger less champion, and its 95% percentile interval.

    Rows are resampled with both verdicts on them, so what is hard for both models cancels: B. Efron and
    R. Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; P. Koehn, "Statistical significance
    tests for machine translation evaluation", EMNLP 2004. A row contributes -1, 0 or 1 to the difference, so
    the counts of the three in a resample of n rows are multinomial: one draw of three numbers replaces n
    draws of rows, with the same distribution.

    Args:
        challenger: (n,) whether the challenger is right on each row.
        champion: (n,) the same of the champion, on the same rows.
        resamples: how many resamples.
        seed: of the resampling.

    Raises:
        ValueError: different numbers of rows, or none.
    """
    if challenger.shape != champion.shape or len(challenger) == 0:
        raise ValueError(f"verdicts of shapes {challenger.shape} and {champion.shape} cannot be paired")
    rows = len(challenger)
    won, lost = int((challenger & ~champion).sum()), int((~challenger & champion).sum())
    shares = np.array([won, lost, rows - won - lost]) / rows
    counts = np.random.default_rng(seed).multinomial(rows, shares, size=resamples)
    differences = (counts[:, 0] - counts[:, 1]) / rows
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate((won - lost) / rows, float(low), float(high))


def calibrate(confidence: Floats, correct: Booleans, bins: int = BINS) -> Calibration:
    """Return confidence against accuracy in equal-width bins; `error` of the result is the ECE.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3, with its 15 equal-width bins;
    the measure is from M. P. Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning",
    AAAI 2015.

    Args:
        confidence: (n,) probability of the predicted class, 0 to 1.
        correct: (n,) whether the prediction is right.
        bins: how many.
    """
    values = confidence.astype(np.float64)
    index = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    divisor = np.maximum(counts, 1)
    return Calibration(
        counts,
        np.bincount(index, weights=values, minlength=bins) / divisor,
        np.bincount(index, weights=correct.astype(np.float64), minlength=bins) / divisor,
    )


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Return the (classes, classes) counts; a line is the actual class, a column the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_scores(matrix: Integers) -> list[ClassScore]:
    """Return precision, recall, F1 and support of each class of a confusion matrix."""
    right, actual, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        ClassScore(
            support=int(a),
            precision=int(r) / int(p) if p else 0.0,
            recall=int(r) / int(a) if a else None,
            f1=2 * int(r) / int(a + p) if r else 0.0,
        )
        for r, a, p in zip(right, actual, predicted, strict=True)
    ]
