"""Ratings as they were told, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftline.problems.answers import Answers
from graftline.problems.rating.scores import ORDER, order_rows
from graftline.problems.recommendation.examples import UNKNOWN
from graftline.problems.regression_parameters import COVERAGE, MAE, R2, WIDTH, squares_rows
from graftline.score import Floats, Integers, RowStatistics, Score
from graftline.trunks.items.vocabulary import Vocabulary

if TYPE_CHECKING:
    from graftline.dataset import Schema


@dataclass(frozen=True)
class Range:
    """What training ratings were like, in the label's unit."""

    mean: float
    deviation: float
    least: float
    largest: float


@dataclass(frozen=True, eq=False)
class RatingAnswers(Answers):
    """An answer is a held-out rating; `rows` says whose it is.

    COVERAGE is the share of all ratings, so that users with many weigh more; what `Rater.calibrate` promises counts
    users alike, and may be kept where that share is a little less. No interval goes beyond the training ratings' ends.
    """

    vocabulary: Vocabulary
    items: Integers
    """(m,) the item's number, or UNKNOWN."""
    ratings: Floats
    """(m,) as it is, in the label's unit."""
    predicted: Floats
    """(m,) as it was told."""
    half: float | None
    """How far an interval reaches to each side, within what ratings there are; None without intervals."""
    range: Range
    promises: ClassVar[tuple[Score, ...]] = (COVERAGE,)

    def statistics(self, score: Score) -> RowStatistics:
        if score == ORDER:
            return order_rows(self.rows, self.ratings, self.predicted)
        if score == MAE:
            return self._mean(score, np.abs(self.ratings - self.predicted))
        if score in (COVERAGE, WIDTH):
            if self.half is None:
                return self._mean(score, None)
            low, high = self.low, self.high
            inside = (low <= self.ratings) & (self.ratings <= high)
            return self._mean(score, inside * 1.0 if score == COVERAGE else high - low)
        actual, told = self.ratings, self.predicted
        if score == R2:  # about 0: the unit does not matter
            actual, told = ((part - self.range.mean) / self.range.deviation for part in (actual, told))
        return squares_rows(score, self.rows, actual[:, None], told[:, None])

    def _mean(self, score: Score, values: Floats | None) -> RowStatistics:
        """Return (sum, how many) of each user."""
        if values is None:
            return RowStatistics.of_units(score, self.rows, [np.zeros(len(self))] * 2)
        return RowStatistics.of_units(score, self.rows, [values, np.ones(len(self))])

    @property
    def low(self) -> Floats:
        """(m,) where the intervals begin; NaN without intervals."""
        found: Floats = np.maximum(self.predicted - self._reach, np.minimum(self.range.least, self.predicted))
        return found

    @property
    def high(self) -> Floats:
        """(m,) where they end."""
        found: Floats = np.minimum(self.predicted + self._reach, np.maximum(self.range.largest, self.predicted))
        return found

    @property
    def _reach(self) -> float:
        return np.nan if self.half is None else self.half

    def columns(self, schema: Schema) -> dict[str, Any]:
        """Return `item` (null of one that the trunk does not know), `rating`, `predicted`, `low` and `high`."""
        import pyarrow as pa

        names = [*self.vocabulary.items, None]  # an unknown item is the last
        ends = {name: pa.nulls(len(self), pa.float64()) for name in ("low", "high")}
        if self.half is not None:
            ends = {"low": pa.array(self.low), "high": pa.array(self.high)}
        items = pa.array([names[item] for item in self.items.tolist()], pa.string())
        return {"item": items, "rating": pa.array(self.ratings), "predicted": pa.array(self.predicted), **ends}

    @property
    def unknown(self) -> int:
        """How many held-out items the trunk does not know."""
        return int((self.items == UNKNOWN).sum())
