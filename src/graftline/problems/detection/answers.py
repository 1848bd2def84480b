"""What a model finds in images, and what each image's boxes are worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.problems.answers import Answers
from graftline.problems.detection.boxes import Found, images_of, offsets_of
from graftline.problems.detection.scores import (
    FOUND_IOU,
    IGNORED,
    MASK_IOU,
    MISSED,
    RECALL,
    THRESHOLDS,
    AveragePrecision,
    matches,
)
from graftline.score import Floats, Integers, RowStatistics, Score
from graftline.values.boxes import Objects

if TYPE_CHECKING:
    import pyarrow as pa

    from graftline.dataset import Schema


@dataclass(frozen=True, eq=False)
class SceneAnswers(Answers):
    """The boxes that were found in each image; an image is a row."""

    found: Found
    true: Objects
    classes: int
    threshold: float
    """Probability from which on a box is an answer."""
    mask_ious: Floats | None = None
    """(true boxes,) IoU of each one's mask with that of the answer it is matched with, 0 without; None if no masks are
    learned."""

    @cached_property
    def given(self) -> np.ndarray:
        """(found boxes,) bool: which are answers."""
        return self.found.probabilities >= self.threshold

    @cached_property
    def matched(self) -> Integers:
        """(found boxes,) as `scores.matches` has it at the IoU of recall and precision; those that are no answers are
        missed."""
        return np.where(self.given, matches(self.found, self.true, np.array([FOUND_IOU]))[:, 0], MISSED)

    @cached_property
    def hit(self) -> np.ndarray:
        """(true boxes,) bool: which are found."""
        found = np.zeros(len(self.true.classes), dtype=np.bool_)
        found[self.matched[self.matched >= 0]] = True
        return found

    @cached_property
    def false(self) -> np.ndarray:
        """(found boxes,) bool: which are answers, and wrong."""
        false: np.ndarray = self.given & (self.matched == MISSED)
        return false

    def statistics(self, score: Score) -> RowStatistics:
        if score in THRESHOLDS:
            return AveragePrecision.of(score, self.rows, self.found, self.true, self.classes)
        images, single = images_of(self.true.offsets), ~self.true.crowd
        if score == RECALL:
            return self._ratio(score, images[single], self.hit[single], np.ones(int(single.sum())))
        if score == MASK_IOU:
            ious = np.zeros(0) if self.mask_ious is None else self.mask_ious[single]
            return self._ratio(score, images[single][: len(ious)], ious, np.ones(len(ious)))
        counted = self.given & (self.matched != IGNORED)
        return self._ratio(score, self.found.images[counted], self.matched[counted] >= 0, np.ones(int(counted.sum())))

    def _ratio(self, score: Score, images: Integers, upper: np.ndarray, lower: np.ndarray) -> RowStatistics:
        """Return the sums by image of two numbers a box, of which the score is the ratio."""
        sums = [np.bincount(images, each, minlength=len(self.rows)) for each in (upper, lower)]
        return RowStatistics(score, self.rows, np.stack(sums, axis=1))

    def columns(self, schema: Schema) -> dict[str, Any]:
        true, found = self.true, self.found
        return {
            "boxes": _lists(true.offsets, _boxes(true.boxes)),
            "labels": _lists(true.offsets, _names(schema, true.classes)),
            "found": _lists(true.offsets, _flags(self.hit)),
            "predicted_boxes": _lists(found.offsets, _boxes(found.boxes)),
            "predicted": _lists(found.offsets, _names(schema, found.classes)),
            "probabilities": _lists(found.offsets, _flags(found.probabilities)),
        }


def _lists(offsets: Integers, values: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _boxes(boxes: Floats) -> pa.Array:
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets_of([4] * len(boxes)), pa.int32()), pa.array(boxes.reshape(-1)))


def _names(schema: Schema, classes: Integers) -> pa.Array:
    import pyarrow as pa

    return pa.array([str(schema.classes[number]) for number in classes.tolist()], pa.string())


def _flags(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(values)
