"""How good a model's answers are: accuracy, per class, calibration, perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from graftline.evaluation.statistics import (
    Calibration,
    ClassScore,
    Estimate,
    Integers,
    calibrate,
    class_scores,
    confusion,
    wilson,
)

if TYPE_CHECKING:
    from graftline.problems.answers import Answers


@dataclass(frozen=True)
class Classes:
    """The answers class by class."""

    matrix: Integers
    """(classes, classes) counts; a line is the actual class, a column the predicted one."""
    scores: list[ClassScore]
    """In the order of the classes."""

    def metrics(self) -> dict[str, float]:
        return {
            "macro_f1": fmean(score.f1 for score in self.scores),
            "min_class_recall": min(score.recall for score in self.scores if score.recall is not None),
        }


@dataclass(frozen=True)
class Quality:
    """What the test rows say about a model."""

    units: int
    """How many answers: rows, words or tokens, as the head says."""
    accuracy: Estimate
    calibration: Calibration
    classes: Classes | None
    """None where the classes are a vocabulary."""
    perplexity: float | None
    """The exponential of the mean surprise a token, where the classes are a vocabulary."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics."""
        return {
            "n_test": self.units,
            "accuracy": self.accuracy.value,
            "accuracy_low": self.accuracy.low,
            "accuracy_high": self.accuracy.high,
            "ece": self.calibration.error,
            **(self.classes.metrics() if self.classes else {}),
            **({} if self.perplexity is None else {"perplexity": self.perplexity}),
        }


def assess(answers: Answers) -> Quality:
    """Return the quality of a model's answers on the test rows."""
    return Quality(
        units=len(answers.labels),
        accuracy=wilson(int(answers.correct.sum()), len(answers.labels)),
        calibration=calibrate(answers.confidence, answers.correct),
        classes=None if answers.probabilities is None else _classes(answers, answers.probabilities.shape[1]),
        perplexity=math.exp(answers.surprise.mean(dtype="float64"))
        if answers.probabilities is None
        else None,
    )


def _classes(answers: Answers, count: int) -> Classes:
    matrix = confusion(answers.labels, answers.predicted, count)
    return Classes(matrix, class_scores(matrix))
