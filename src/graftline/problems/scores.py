"""The scores that problems share, and each one's statistics of a row; without torch, for the gate names them.

A function `..._rows` returns a score's statistics from arrays with a value a unit: a row, a word or a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftline.errors import InputError
from graftline.score import Floats, Integers, RowStatistics, Score, ends, exact_reach, ratio
from graftline.tasks.parameters import Params

Sets = NDArray[np.bool_]
"""(n, classes): whether each row is of each class."""

BINS = 15
_RANKED_WORK = 2e8  # rows times classes times resamples: some seconds


def accuracy(title: str = "accuracy") -> Score:
    """Return the share of units whose most probable class is the right one; a row adds (right, units)."""
    return Score("accuracy", title, ratio)


def _class_parts(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return right, actual and predicted units of each class, (..., classes) each."""
    count = sums.shape[-1] // 3
    return sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count :]


def _macro_f1(sums: Floats) -> Floats:
    """Return the mean F1 of the classes that occur among labels or predictions, as scikit-learn's f1_score does."""
    right, actual, predicted = _class_parts(sums)
    occurs = actual + predicted > 0
    f1 = 2 * right / np.where(occurs, actual + predicted, 1)
    mean: Floats = f1.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
    return mean


def _min_class_recall(sums: Floats) -> Floats:
    right, actual, _ = _class_parts(sums)
    worst: Floats = np.where(actual > 0, right / np.where(actual > 0, actual, 1), np.inf).min(axis=-1)
    return worst


def _calibration_error(sums: Floats) -> Floats:
    """Return the mean gap of confidence and accuracy over the bins, weighted by their counts."""
    counts, confidence, right = np.split(sums, 3, axis=-1)
    total = counts.sum(axis=-1)
    gaps: Floats = np.abs(confidence - right).sum(axis=-1) / np.where(total > 0, total, 1)
    return gaps


def _perplexity(sums: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


MACRO_F1 = Score("macro_f1", "mean F1 of the classes", _macro_f1)
MIN_CLASS_RECALL = Score("min_class_recall", "recall of the worst class", _min_class_recall)
ECE = Score("ece", "calibration error (ECE)", _calibration_error, higher=False)
AUROC = Score("auroc", "area under the ROC curve, mean of the classes")
PERPLEXITY = Score("perplexity", "perplexity of the tokens", _perplexity, higher=False, share=False, lowest=1.0)


ACCURACY_AT_80 = Score("accuracy_at_80", "accuracy of the 80% of the answers that are surest")
SET_COVERAGE = Score("set_coverage", "share of the sets of classes that hold the right one", ratio)
SET_SIZE = Score("set_size", "classes in a set, mean", ratio, higher=False, share=False)
COST = Score("cost", "cost of an answer, mean", ratio, higher=False, share=False)

DECIDING = (ACCURACY_AT_80, SET_COVERAGE, SET_SIZE, COST)
"""Of heads that choose a class: how good they are at not choosing. Those of sets are defined with
`calibration` only, and the cost with `costs`."""
ONE_CLASS_A_ROW = (accuracy(), MACRO_F1, MIN_CLASS_RECALL, AUROC, ECE, *DECIDING)


class ProblemParams(Params):
    """Parameters of every problem."""

    name: str

    scores: ClassVar[tuple[Score, ...]]
    """What is measured on the test rows; the first is the primary one, which all comparisons are by."""
    explains: ClassVar[bool] = False
    """Whether `Problem.explained` has something: an answer with a probability, and parts of what was asked."""

    confuses: ClassVar[bool] = False
    """Whether an answer is one of some classes, so that an evaluation has confusion.csv."""
    probes: ClassVar[bool] = False
    """Whether the head can be solved in closed form on a trunk that stays as it is."""

    odds: ClassVar[bool] = False
    """Whether `Answers.odds` says how sure a model is of what is right of each row, which membership attacks go by."""

    private: ClassVar[bool] = False
    """Whether it can be fine-tuned with differential privacy: its loss is a mean over rows of what each says alone, and
    nothing else is taken from the training examples."""

    @property
    def holds_out(self) -> str | None:
        """The parameter that needs labels held out to be of any use, if one that does is given."""
        return None


def no_explanation(params: ProblemParams, where: str | Path) -> InputError:
    """Return what to say where explanations are asked of a problem that has none."""
    return InputError(
        where,
        f"the head {params.name}, which has no explanations",
        expected="one whose answers have a probability and whose input has parts, such as a classification",
        fix="leave it out",
    )


def accuracy_rows(score: Score, rows: Integers, right: NDArray[np.bool_]) -> RowStatistics:
    return RowStatistics.of_units(score, rows, [right, np.ones(len(right))])


def mean_rows(score: Score, rows: Integers, values: NDArray[Any] | None) -> RowStatistics:
    """Return what a mean needs of (n,) or (n, numbers) values, (sum, numbers) of each row; of None what has no mean."""
    table = np.zeros((len(rows), 0)) if values is None else values.reshape(len(rows), -1)
    return RowStatistics.of_units(score, rows, [table.sum(axis=1), np.full(len(rows), table.shape[1])])


@dataclass(frozen=True, eq=False)
class Surest(RowStatistics):
    """The share of right answers among the surest ones; `statistics` are each unit's (confidence, right).

    No sum over rows tells which of those that are drawn are the surest, so each resample is ranked.
    """

    units: Integers
    """The place of each unit's row in `rows`."""
    answered: float
    """How large a share of the weight of all units is answered."""

    @property
    def most_resamples(self) -> int | None:
        return int(max(200, min(1000, _RANKED_WORK / self.statistics.size)))

    def _values(self, weights: Floats) -> Floats:
        """Where several units are as sure as the last one that is answered, each of them is answered in part."""
        confidence, right = self.statistics.T
        order = np.argsort(-confidence, kind="stable")
        falling = confidence[order]
        starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])
        drawn = weights[:, self.units[order]]
        hits, all_ = (np.add.reduceat(part, starts, axis=1) for part in (drawn * right[order], drawn))
        before = all_.cumsum(axis=1) - all_
        wanted = self.answered * all_.sum(axis=1, keepdims=True)
        part = np.clip(wanted - before, 0, all_) / np.where(all_ > 0, all_, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share: Floats = (part * hits).sum(axis=1) / wanted[:, 0]
        return share


def surest_rows(rows: Integers, confidence: Floats, right: NDArray[np.bool_]) -> Surest:
    """Return what the accuracy of the surest 80% of units needs.

    Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.
    """
    known, place = np.unique(rows, return_inverse=True)
    return Surest(ACCURACY_AT_80, known, np.stack([confidence, right], axis=1).astype(np.float64), place, 0.8)


def perplexity_rows(rows: Integers, surprise: Floats) -> RowStatistics:
    """Return (nats, tokens) of each row."""
    return RowStatistics.of_units(PERPLEXITY, rows, [surprise, np.ones(len(surprise))])


def class_rows(score: Score, rows: Integers, labels: Integers, predicted: Integers, classes: int) -> RowStatistics:
    """Return each row's right, actual and predicted units of each class, (n, 3 * classes).

    In float32: counts are exact below 2**24, and with many classes this is the largest array of an evaluation.
    """
    known, place = np.unique(rows, return_inverse=True)
    hits = labels == predicted
    parts = ((place[hits], labels[hits]), (place, labels), (place, predicted))
    tables = [_table(row, of, (len(known), classes)).astype(np.float32) for row, of in parts]
    return RowStatistics(score, known, np.concatenate(tables, axis=1))


def _table(
    row: Integers, column: Integers, shape: tuple[int, int], weights: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return how many units, or what weight, each cell has."""
    return np.bincount(row * shape[1] + column, weights, minlength=shape[0] * shape[1]).reshape(shape)


def calibration_rows(rows: Integers, confidence: Floats, right: NDArray[np.bool_]) -> RowStatistics:
    """Return each row's units, confidence and right ones of each of 15 bins of equal width, (n, 45).

    C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3. Bin i holds confidences in
    (i/15, (i+1)/15].
    """
    known, place = np.unique(rows, return_inverse=True)
    bins = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    tables = [_table(place, bins, (len(known), BINS), of) for of in (None, confidence, right)]
    return RowStatistics(ECE, known, np.concatenate(tables, axis=1))


@dataclass(frozen=True, eq=False)
class Ranked(RowStatistics):
    """A value of each class by the ranks of its probabilities, and their mean over the classes that have rows.

    `statistics` are (n, classes) probabilities: no sum over rows tells such a value, so each resample is ranked.
    """

    members: Sets
    measure: Callable[[Floats, Floats], Floats]
    """(b, steps) rows drawn of a class, and of all, by falling probability, to the class's (b,) values. Rows of one
    probability are one step."""

    @property
    def most_resamples(self) -> int | None:
        return int(max(200, min(1000, _RANKED_WORK / self.statistics.size)))

    @cached_property
    def _steps(self) -> list[tuple[Integers, Integers]]:
        """The order of the rows by each class's probability, and where a step begins in it."""
        found = []
        for column in self.statistics.T:
            order = np.argsort(-column, kind="stable")
            falling = column[order]
            found.append((order, np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])))
        return found

    def _values(self, weights: Floats) -> Floats:
        found = np.stack([self.of_class(number, weights) for number in range(self.members.shape[1])])
        known = np.isfinite(found)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(known, found, 0).sum(axis=0) / known.sum(axis=0)
        return mean

    def of_class(self, number: int, weights: Floats) -> Floats:
        """Return a class's (b,) values on rows drawn `weights` (b, n) times; NaN where it is not defined."""
        order, starts = self._steps[number]
        members = self.members[order, number]
        if not members.any():
            return np.full(len(weights), np.nan)
        drawn = weights[:, order]
        hits, all_ = (np.add.reduceat(part, starts, axis=1) for part in (drawn * members, drawn))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.measure(hits, all_)


def _area(hits: Floats, drawn: Floats) -> Floats:
    """Return the share of pairs in which the row of the class has the larger probability, ties counted half.

    H. Mann and D. Whitney, "On a test of whether one of two random variables is stochastically larger", Ann. Math.
    Stat. 18 (1947).
    """
    others, above = drawn - hits, hits.cumsum(axis=1) - hits
    area: Floats = (others * (above + hits / 2)).sum(axis=1) / (hits.sum(axis=1) * others.sum(axis=1))
    return area


def _average_precision(hits: Floats, drawn: Floats) -> Floats:
    """Return the sum of precision times the rise of recall, without interpolation."""
    taken = drawn.cumsum(axis=1)
    precision = hits.cumsum(axis=1) / np.where(taken > 0, taken, 1)
    mean: Floats = (hits * precision).sum(axis=1) / hits.sum(axis=1)
    return mean


def auroc_rows(rows: Integers, labels: Integers, probabilities: Floats) -> Ranked:
    """Return what the areas of rows with one label each need: scikit-learn's roc_auc_score(multi_class="ovr")."""
    return area_rows(AUROC, rows, labels[:, None] == np.arange(probabilities.shape[1]), probabilities)


def area_rows(score: Score, rows: Integers, members: Sets, probabilities: NDArray[Any]) -> Ranked:
    """Return what the mean of the areas needs, of each class against the rest."""
    return _ranked(score, rows, members, probabilities, _area)


def precision_rows(score: Score, rows: Integers, members: Sets, probabilities: NDArray[Any]) -> Ranked:
    """Return what the mean of average precisions needs: scikit-learn's average_precision_score of each class."""
    return _ranked(score, rows, members, probabilities, _average_precision)


def _ranked(
    score: Score,
    rows: Integers,
    members: Sets,
    probabilities: NDArray[Any],
    measure: Callable[[Floats, Floats], Floats],
) -> Ranked:
    order = np.argsort(rows, kind="stable")
    return Ranked(score, rows[order], probabilities[order].astype(np.float64), members[order], measure)


@dataclass(frozen=True)
class ClassScore:
    """One class against the rest; every score is a fraction from 0 to 1."""

    support: int
    """Test units that are of this class."""
    precision: float
    """Right among those predicted as this class; 0 if none is predicted so."""
    recall: float | None
    """Right among those of this class; None if the class has no units."""
    recall_interval: tuple[float, float] | None
    """Its 95% interval: the bootstrap's, or the exact one where all units of the class are right, or all are wrong."""
    f1: float
    """Harmonic mean of precision and recall; 0 if nothing of this class is right."""


def class_scores(measured: RowStatistics) -> list[ClassScore]:
    """Return precision, recall, F1 and support of each class, of what `class_rows` returned."""
    parts: Any = _class_parts(measured.statistics.sum(axis=0, dtype=np.float64).astype(np.int64))
    low, high = _recall_ends(measured)
    return [
        ClassScore(
            support=int(a),
            precision=int(r) / int(p) if p else 0.0,
            recall=int(r) / int(a) if a else None,
            recall_interval=(float(low[number]), float(high[number])) if a else None,
            f1=2 * int(r) / int(a + p) if r else 0.0,
        )
        for number, (r, a, p) in enumerate(zip(*parts, strict=True))
    ]


def _recall_ends(measured: RowStatistics) -> tuple[Floats, Floats]:
    """Return the (classes,) ends of each class's recall; see `score.estimate` for why some are exact."""
    right, actual, _ = _class_parts(measured.statistics)
    both = RowStatistics(measured.score, measured.rows, np.concatenate([right, actual], axis=1))
    resamples = int(max(200, min(1000, _RANKED_WORK / both.statistics.size)))
    low, high = ends(both, _recalls, resamples=resamples, seed=0)
    reach = exact_reach(np.count_nonzero(actual, axis=0))
    agree = low == high
    return np.where(agree & (low == 1), 1 - reach, low), np.where(agree & (high == 0), reach, high)


def _recalls(sums: Floats) -> Floats:
    return ratio(np.stack(np.split(sums, 2, axis=-1), axis=-1))


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Return the (classes, classes) counts; a line is the actual class, a column the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
