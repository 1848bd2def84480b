"""What a model says about the test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from graftline.dataset import Images


@dataclass(frozen=True)
class Predictions:
    """A model's answers on n rows, in the order of the images."""

    labels: NDArray[np.int64]
    """(n,) true class indices."""
    probabilities: NDArray[np.float32]
    """(n, classes)."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) class indices of the largest probability."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(n,) the largest probability."""
        confidence: NDArray[np.float32] = self.probabilities.max(axis=1)
        return confidence

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


def predict(folder: Path, images: Images) -> Predictions:
    """Return what the model in `folder` (a model or a release) says about labelled images."""
    import torch

    from graftline.components.finetune.model import load_model, probabilities

    assert images.labels is not None
    return Predictions(images.labels, probabilities(load_model(folder), torch.from_numpy(images.pixels)))
