"""What a model says about examples: one answer a unit, which is a row, a word or a token, as the head says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """A model's answers on n units, in the order of the examples."""

    labels: NDArray[np.int64]
    """(n,) true class indices."""
    predicted: NDArray[np.int64]
    """(n,) class indices of the largest probability."""
    confidence: NDArray[np.float32]
    """(n,) the largest probability."""
    surprise: NDArray[np.float32]
    """(n,) minus the natural logarithm of the true class's probability; infinite where that is 0."""
    probabilities: NDArray[np.float32] | None = None
    """(n, classes); None where the classes are a vocabulary, for n times a vocabulary would not fit."""

    @classmethod
    def of(cls, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Answers:
        """Return the answers that (n, classes) probabilities give."""
        true = probabilities[np.arange(len(labels)), labels]
        with np.errstate(divide="ignore"):
            surprise = -np.log(true)
        return cls(labels, probabilities.argmax(axis=1), probabilities.max(axis=1), surprise, probabilities)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the prediction is right."""
        correct: NDArray[np.bool_] = self.predicted == self.labels
        return correct

    @property
    def accuracy(self) -> float:
        return int(self.correct.sum()) / len(self.labels)

    def worst_mistakes(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the wrong answers, most confident first, at most `count`."""
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count]


def labelled(probabilities: NDArray[np.float32], classes: Sequence[int | str]) -> dict[str, Any]:
    """Return `label` and `probabilities` by class name, of one unit's (classes,) probabilities."""
    return {
        "label": classes[int(probabilities.argmax())],
        "probabilities": {str(name): float(p) for name, p in zip(classes, probabilities, strict=True)},
    }
