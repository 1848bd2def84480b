"""What a model says about examples, and what that is worth. What an answer is, the problem decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftline.problems.conformal import by_group
from graftline.problems.groups import Groups
from graftline.score import RowStatistics, Score

if TYPE_CHECKING:
    from graftline.dataset import Schema


@dataclass(frozen=True, eq=False)
class Answers(ABC):
    """A model's answers on labelled examples, and which row each is about."""

    scores: tuple[Score, ...]
    """What the problem measures; the first is the primary one."""
    rows: NDArray[np.int64]
    """(n,) the row in the raw data of each answer; a row may have several."""
    loss: float
    """Mean loss of an answer; it breaks ties of the primary score."""
    weights: tuple[NDArray[np.int64], NDArray[np.float64]] | None = field(default=None, kw_only=True)
    """Rows, ascending, and how much each counts; None where all count alike."""
    groups: Groups | None = field(default=None, kw_only=True)
    """Which rows come together; None where each stands by itself."""
    promises: ClassVar[tuple[Score, ...]] = ()
    """The scores that say whether what was promised of new rows is kept."""

    @abstractmethod
    def statistics(self, score: Score) -> RowStatistics:
        """Return what each row adds to one of the scores, whatever its weight."""

    def measured(self, score: Score) -> RowStatistics:
        """Return what each row adds to one of the scores, times its weight."""
        found = self.statistics(score)
        return found if self.weights is None else replace(found, weights=self._weights_of(found.rows))

    def drawn(self, score: Score) -> RowStatistics:
        """Return what is drawn anew for a score's interval: rows, and of a promise about new groups these."""
        found = self.measured(score)
        if self.groups is None or score not in self.promises:
            return found
        return by_group(found, self.groups.of(found.rows))

    @property
    def answer_weights(self) -> NDArray[np.float64] | None:
        """(n,) how much the row of each answer counts; None where all count alike."""
        return self._weights_of(self.rows)

    def _weights_of(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        if self.weights is None:
            return None
        known, weights = self.weights
        return weights[np.searchsorted(known, rows)]

    @abstractmethod
    def columns(self, schema: Schema) -> dict[str, Any]:
        """Return the Arrow columns of predictions.parquet, a value an answer."""

    def odds(self) -> NDArray[np.float64]:
        """Return (n,) the log odds of what is right, of problems whose parameters say `odds`."""
        raise NotImplementedError

    @property
    def primary(self) -> RowStatistics:
        return self.measured(self.scores[0])

    @property
    def value(self) -> float:
        """The primary score."""
        return self.primary.value

    def __len__(self) -> int:
        return len(self.rows)


LABEL_HEADER = ("label", "probability", "next")


def label_line(answer: dict[str, Any]) -> tuple[str, ...]:
    """Return what `Decided.told` says for people: the label, its probability, and what comes next.

    Where the label is not known it stands behind what else it may be.
    """
    label, told = str(answer["label"]), answer["probabilities"]
    name, probability = max(((of, p) for of, p in told.items() if of != label), key=lambda item: item[1])
    if not answer.get("known", True):
        held = ", ".join(map(str, answer["set"])) or "no class is probable enough"
        return f"do not know: {held}", f"{told[label]:.4f} ({label})", f"{name} ({probability:.4f})"
    return label, f"{told[label]:.4f}", f"{name} ({probability:.4f})"
