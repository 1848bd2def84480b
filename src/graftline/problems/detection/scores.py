"""How well boxes are found: average precision as COCO defines it, recall and precision; without torch.

T.-Y. Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and its evaluation code of 2015: boxes of a
class are matched with true ones image by image, the most probable first; precision is read off at 101 recalls. Here
images are matched once, and what was matched is put together anew for every resample of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from graftline.problems.detection.boxes import Found, images_of, overlaps
from graftline.score import Floats, Integers, RowStatistics, Score, ratio

if TYPE_CHECKING:
    from graftline.values.boxes import Objects

AP50 = Score("ap50", "AP at IoU 0.5")
AP = Score("ap", "AP, mean of IoU 0.5 to 0.95")
RECALL = Score("recall", "recall of objects at IoU 0.4", ratio)
PRECISION = Score("precision", "precision of boxes at IoU 0.4", ratio)
MASK_IOU = Score("mask_iou", "IoU of objects' masks", ratio)
SCORES = (AP50, AP, RECALL, PRECISION, MASK_IOU)

THRESHOLDS: dict[Score, Floats] = {AP50: np.array([0.5]), AP: np.linspace(0.5, 0.95, 10)}
"""The IoUs from which on a box counts as found; a score is the mean over them."""
FOUND_IOU = 0.4
"""Likewise for recall and precision: half the area of two equal boxes is common at 0.33, and 0.4 is what work on tree
crowns reports (B. Weinstein et al., "DeepForest", Methods Ecol. Evol. 11, 2020)."""
_RECALLS = np.linspace(0, 1, 101)
_TINY = float(np.spacing(1))  # as COCO's code has it in the denominator
_WORK = 2e9  # detections times resamples: some seconds
_AT_ONCE = 4_000_000
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")

MISSED, IGNORED = -1, -2
"""Of a found box that is matched with no true one; and of one in a crowd, which counts for nothing."""


def match(ious: Floats, crowd: NDArray[np.bool_], least: float) -> Integers:
    """Return (found,) which true box each found one is matched with, `MISSED` or `IGNORED`.

    A found box takes the nearest true one that is left, from an IoU of `least` on; of equally near ones the last, as
    COCO's code does. One that gets none lies in a crowd if its IoU with that is as large.

    Args:
        ious: (found, true), the most probable found box first.
        crowd: (true,) which are regions of many objects.
        least: from 0 to 1.
    """
    matched = np.full(len(ious), MISSED)
    least = min(least, 1 - 1e-10)
    left = np.where(crowd, -1.0, ious)
    for place in np.flatnonzero((left >= least).any(axis=1)):
        near = left[place]
        best = len(near) - 1 - int(near[::-1].argmax())
        if near[best] >= least:
            matched[place] = best
            left[:, best] = -1
    ignored = (matched == MISSED) & ((ious >= least) & crowd).any(axis=1)
    return np.where(ignored, IGNORED, matched)


def matches(found: Found, true: Objects, thresholds: Floats) -> Integers:
    """Return (found boxes, thresholds): what `match` says of each among the true boxes of its image and class, as a
    place in `true`."""
    matched = np.full((len(found.classes), len(thresholds)), MISSED)
    classes = 1 + max(found.classes.max(initial=0), true.classes.max(initial=0))
    keys, wanted = found.images * classes + found.classes, images_of(true.offsets) * classes + true.classes
    order, places = np.argsort(keys, kind="stable"), np.argsort(wanted, kind="stable")
    both = np.intersect1d(keys, wanted)
    first, last = (np.searchsorted(keys[order], both, side) for side in _SIDES)
    start, end = (np.searchsorted(wanted[places], both, side) for side in _SIDES)
    for number in range(len(both)):
        mine, theirs = order[first[number] : last[number]], places[start[number] : end[number]]
        crowd = true.crowd[theirs]
        ious = overlaps(found.boxes[mine], true.boxes[theirs], crowd)
        for column, least in enumerate(thresholds):
            chosen = match(ious, crowd, float(least))
            matched[mine, column] = np.where(chosen < 0, chosen, theirs[np.maximum(chosen, 0)])
    return matched


@dataclass(frozen=True, eq=False)
class AveragePrecision(RowStatistics):
    """The mean of the classes' average precisions; `statistics` are (n, classes) true boxes of each image.

    No sum over images tells it: found boxes of all images are ranked together. They stand here in falling order of
    probability, those of one probability in the order of images.
    """

    images: Integers
    """(found,) places of each one's image among the rows."""
    classes: Integers
    """(found,)."""
    matched: Integers
    """(found, thresholds), as `matches` has them."""

    @classmethod
    def of(cls, score: Score, rows: Integers, found: Found, true: Objects, classes: int) -> AveragePrecision:
        """Return what the boxes of images add; `rows` are the images'."""
        wanted = (images_of(true.offsets) * classes + true.classes)[~true.crowd]
        objects = np.bincount(wanted, minlength=len(rows) * classes).reshape(-1, classes)
        matched = matches(found, true, THRESHOLDS[score])
        order = np.argsort(-found.probabilities, kind="stable")
        return cls(score, rows, objects.astype(np.float64), found.images[order], found.classes[order], matched[order])

    @property
    def most_resamples(self) -> int | None:
        return int(max(200, min(2000, _WORK / (1 + self.matched.size + self.statistics.size))))

    @cached_property
    def _of_classes(self) -> list[tuple[Integers, Integers]]:
        """Images and matches of each class's found boxes."""
        mine = [np.flatnonzero(self.classes == number) for number in range(self.statistics.shape[1])]
        return [(self.images[of], self.matched[of]) for of in mine]

    def _values(self, weights: Floats) -> Floats:
        most = max(1, _AT_ONCE // (1 + max((len(images) for images, _ in self._of_classes), default=0)))
        parts = [self._some(weights[start : start + most]) for start in range(0, len(weights), most)]
        return np.concatenate(parts)

    def _some(self, weights: Floats) -> Floats:
        objects = weights @ self.statistics
        each = np.stack([self._of_class(number, weights, objects[:, number]) for number in range(objects.shape[1])])
        there = objects.T > 0  # a class without objects has no recall
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(there, each, 0).sum(axis=0) / there.sum(axis=0)
        return mean

    def _of_class(self, number: int, weights: Floats, objects: Floats) -> Floats:
        """Return (b,) average precisions of a class, the mean over the thresholds."""
        images, matched = self._of_classes[number]
        drawn = weights[:, images]
        counted = drawn.cumsum(axis=1)
        total = np.zeros(len(weights))
        for column in matched.T:
            at = np.flatnonzero(column >= 0)
            ignored = column == IGNORED
            taken = (drawn * ~ignored).cumsum(axis=1) if ignored.any() else counted
            right = drawn[:, at].cumsum(axis=1)
            precision = right / (taken[:, at] + _TINY)
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = right / np.where(objects > 0, objects, 1)[:, None]
            reached = np.searchsorted(_RECALLS, recall, side="right")
            total += (np.diff(reached, axis=1, prepend=0) * best).sum(axis=1) / len(_RECALLS)
        mean: Floats = total / matched.shape[1]
        return mean

    def curve(self, column: int) -> tuple[Floats, Floats]:
        """Return recall and precision of all classes' boxes together as probability falls, at one of the thresholds."""
        counted = self.matched[:, column] != IGNORED
        right = (self.matched[counted, column] >= 0).cumsum()
        return right / max(1.0, self.statistics.sum()), right / np.arange(1, len(right) + 1)


def best_threshold(found: Found, true: Objects) -> float | None:
    """Return the probability from which on boxes have the largest F1, halfway to the next lower one.

    None if no box is right.
    """
    (matched,) = matches(found, true, np.array([FOUND_IOU])).T
    counted = matched != IGNORED
    if not (matched >= 0).any():
        return None
    order = np.argsort(-found.probabilities[counted], kind="stable")
    falling, right = found.probabilities[counted][order], (matched[counted] >= 0)[order].cumsum()
    objects = int((~true.crowd).sum())
    f1 = 2 * right / (np.arange(1, len(right) + 1) + objects)
    last = np.append(falling[1:] < falling[:-1], True)  # boxes of one probability stay together
    best = int(np.where(last, f1, -1).argmax())
    return float((falling[best] + (falling[best + 1] if best + 1 < len(falling) else 0)) / 2)
