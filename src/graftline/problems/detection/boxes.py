"""Found boxes of images, and how much boxes have in common: (x0, y0, x1, y1) in pixels; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.score import Floats, Integers


@dataclass(frozen=True, eq=False)
class Found:
    """The boxes that were found in n images, one image after the other, in each the most probable first."""

    offsets: Integers
    """(n + 1,): those of image i are from offsets[i] to offsets[i + 1]."""
    boxes: Floats
    """(m, 4) float32."""
    classes: Integers
    """(m,)."""
    probabilities: Floats
    """(m,) float32: that an object of the class is there."""

    @classmethod
    def joined(cls, parts: Sequence[Found]) -> Found:
        """Return the boxes of all parts' images."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        named = ("boxes", "classes", "probabilities")
        return cls(offsets_of(counts), *(np.concatenate([getattr(part, name) for part in parts]) for name in named))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.offsets) - 1

    @cached_property
    def images(self) -> Integers:
        """(m,) the place of each box's image."""
        return images_of(self.offsets)

    def of(self, image: int) -> slice:
        """Return the places of an image's boxes."""
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))


def images_of(offsets: Integers) -> Integers:
    """Return (m,) the place of the image of each of the boxes that `offsets` divides."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def offsets_of(counts: Any) -> Integers:
    """Return (n + 1,) places of n runs of so many."""
    found = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=found[1:])
    return found


def areas(boxes: Floats) -> Floats:
    """Return the (m,) areas of (m, 4) boxes."""
    found: Floats = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    return found


def in_common(one: Floats, other: Floats) -> Floats:
    """Return the (k, m) common areas of (k, 4) and (m, 4) boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    found: Floats = np.prod(np.clip(high - low, 0, None), axis=2)
    return found


def overlaps(one: Floats, other: Floats, crowd: NDArray[np.bool_] | None = None) -> Floats:
    """Return (k, m) float64: the common area of (k, 4) and (m, 4) boxes over that of both (IoU).

    Where (m,) `crowd` is true, over that of the first box alone, as COCO has it.
    """
    one, other = one.astype(np.float64), other.astype(np.float64)
    common = in_common(one, other)
    both = areas(one)[:, None] + areas(other)[None] - common
    if crowd is not None:
        both = np.where(crowd, areas(one)[:, None], both)
    return np.divide(common, both, out=np.zeros_like(common), where=both > 0)


def without_doubles(boxes: Floats, classes: Integers, most: float) -> NDArray[np.bool_]:
    """Return (m,) which boxes stay: no two of a class have an IoU above `most`, of two the first stays.

    Non-maximum suppression (P. Felzenszwalb et al., "Object detection with discriminatively trained part-based
    models", 2010, 5.2), greedy, of boxes in falling order of probability.
    """
    double = (overlaps(boxes, boxes) > most) & (classes[:, None] == classes)
    stays = np.ones(len(boxes), dtype=np.bool_)
    for place in range(len(boxes)):
        if stays[place]:
            stays[place + 1 :] &= ~double[place, place + 1 :]
    return stays
