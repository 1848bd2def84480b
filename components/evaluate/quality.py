"""How good a model's answers are: accuracy, per class, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from graftline.components.evaluate.predict import Predictions
from graftline.components.evaluate.statistics import (
    Calibration,
    ClassScore,
    Estimate,
    Integers,
    calibrate,
    class_scores,
    confusion,
    wilson,
)


@dataclass(frozen=True)
class Quality:
    """What the test rows say about a model."""

    rows: int
    accuracy: Estimate
    calibration: Calibration
    matrix: Integers
    """(classes, classes) counts; a line is the actual class, a column the predicted one."""
    scores: list[ClassScore]
    """In the order of the classes."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics."""
        return {
            "n_test": self.rows,
            "accuracy": self.accuracy.value,
            "accuracy_low": self.accuracy.low,
            "accuracy_high": self.accuracy.high,
            "ece": self.calibration.error,
            "macro_f1": fmean(score.f1 for score in self.scores),
            "min_class_recall": min(score.recall for score in self.scores if score.recall is not None),
        }


def assess(answers: Predictions) -> Quality:
    """Return the quality of a model's answers on the test rows."""
    matrix = confusion(answers.labels, answers.predicted, answers.probabilities.shape[1])
    return Quality(
        rows=len(answers.labels),
        accuracy=wilson(int(answers.correct.sum()), len(answers.labels)),
        calibration=calibrate(answers.confidence, answers.correct),
        matrix=matrix,
        scores=class_scores(matrix),
    )
