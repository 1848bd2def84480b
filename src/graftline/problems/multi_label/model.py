"""What the models of images and of text share: a yes or no a class, and the thresholds between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from graftline.dataset import Schema
from graftline.problems.groups import Groups
from graftline.problems.multi_label.answers import SetAnswers
from graftline.problems.multi_label.scores import best_threshold
from graftline.problems.weighing import weighed

_UNCHOSEN = 0.5
"""The threshold where val says nothing: from it on a class is more probable than not."""


class SetModel(ABC):
    """Among a model's bases, before one that gives (n, classes) logits: a set of classes out of them."""

    _params: Any
    """A `MultiLabelParams`."""
    thresholds: np.ndarray
    """(classes,) float64."""

    @abstractmethod
    def logits(self, examples: Any, *, fast: bool = False) -> torch.Tensor:
        """Return (n, classes) float32 logits on the CPU."""

    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Return the mean binary cross entropy of (n, classes) logits and bool labels, on one device.

        A row's is multiplied by its weight, if there are weights.
        """
        smoothing = self._params.label_smoothing
        targets = labels.float() * (1 - smoothing) + smoothing / 2
        if weights is None:
            return nn.functional.binary_cross_entropy_with_logits(outputs, targets)
        each = nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return weighed(each.mean(dim=1), weights)

    def begin(self, train: Any) -> None:
        given = self._params.threshold
        self.thresholds = np.full(train.labels.shape[1], _UNCHOSEN if given is None else given)

    def go_on_from(self, other: Any) -> None:
        super().go_on_from(other)  # type: ignore[misc]  # of the base behind
        self.thresholds = other.thresholds

    def calibrate(self, val: Any, groups: Groups | None = None) -> None:
        """Choose the thresholds, if the parameters leave them open."""
        if self._params.threshold is None:
            of_classes = zip(val.labels.numpy().T, self.probabilities(val).T, strict=True)
            found = [best_threshold(*of) for of in of_classes]
            self.thresholds = np.array([_UNCHOSEN if one is None else one for one in found])

    def answer(self, examples: Any, *, fast: bool = False) -> Any:
        """Return the `SetAnswers` on labelled examples."""
        logits = self.logits(examples, fast=fast)
        return SetAnswers.of(self._params.scores, examples.rows, examples.labels, logits, self.thresholds)

    def chosen(self, examples: Any, schema: Schema) -> tuple[torch.Tensor, list[str]]:
        """Return the (n,) indices of the most probable classes, and their names."""
        found = self.logits(examples).argmax(dim=1)
        return found, [str(schema.classes[number]) for number in found.tolist()]

    def probabilities(self, examples: Any) -> np.ndarray:
        """Return (n, classes) float32, each by itself from 0 to 1."""
        return self.logits(examples).sigmoid().numpy()

    def save(self, folder: Path) -> dict[str, Any]:
        facts: dict[str, Any] = super().save(folder)  # type: ignore[misc]  # of the base behind
        return {**facts, "thresholds": self.thresholds.tolist()}


M = TypeVar("M", bound=nn.Module)


def with_thresholds(model: M, facts: dict[str, Any]) -> M:
    """Return the model, a `SetModel`, with the thresholds that `save` told.

    Raises:
        KeyError, TypeError, ValueError: there are none, or of other classes.
    """
    found = np.array(facts["thresholds"], dtype=np.float64)
    if found.shape != (len(facts["classes"]),):
        raise ValueError(f"thresholds of shape {found.shape} for {len(facts['classes'])} classes")
    model.thresholds = found  # type: ignore[assignment]  # nn.Module takes any
    return model
