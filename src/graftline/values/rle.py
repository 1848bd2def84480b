"""Masks as COCO's run-length encodings, and the polygons that become such.

A mask is the lengths of its runs of 0 and 1 by turns, column after column, beginning with zeros; as a string each
length is written in groups of 5 bits, from the third on as the difference to the one two before. The reference is
pycocotools (https://github.com/ppwwyyxx/cocoapi, common/maskApi.c), which trusts what it reads: strings from outside
are taken apart here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

_MOST_GROUPS = 13
"""Of 5 bits, that a length of 63 bits may take."""
_FARTHEST = 1 << 15
"""Coordinate up to which polygons are drawn: each pixel of an edge takes memory."""
_LONGEST = 1 << 20
"""Pixels of all edges together: some hundred megabytes."""


class BadMaskError(Exception):
    """There is no mask; the message says in a few words why."""


def encode(mask: np.ndarray) -> str:
    """Return the string of a (height, width) mask of 0 and others: `decode(encode(mask), *mask.shape)` equals it."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(bool), dtype=np.uint8))
    return str(encoded["counts"], "ascii")


def decode(text: str, height: int, width: int) -> np.ndarray:
    """Return the mask of a string, (height, width) uint8 of 0 and 1. Raises BadMaskError."""
    found: np.ndarray = decode_all([text], height, width)[0]
    return found


def decode_all(texts: Sequence[str], height: int, width: int) -> np.ndarray:
    """Return the masks of n strings, (n, height, width) uint8 of 0 and 1. Raises BadMaskError.

    What strings say is remembered: in training the same ones come again each epoch.
    """
    runs = [_runs(text) for text in texts]
    for lengths in runs:
        if lengths.sum() != height * width:
            raise BadMaskError(f"runs of {lengths.sum()} pixels, and a picture of {height} x {width}")
    counts = np.array([len(lengths) for lengths in runs], np.int64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    inside = ((np.arange(len(first)) - first) % 2).astype(np.uint8)
    flat = np.repeat(inside, np.concatenate([np.empty(0, np.int64), *runs]))
    found: np.ndarray = flat.reshape(len(texts), width, height).transpose(0, 2, 1)
    return found


@lru_cache(maxsize=1 << 14)
def _runs(text: str) -> np.ndarray:
    lengths = lengths_of(text)
    if not all(0 <= length < _FARTHEST**2 for length in lengths):
        raise BadMaskError("a run-length encoding with a length that no picture has")
    return np.array(lengths, np.int64)


def read(value: Any, height: int, width: int) -> np.ndarray | list[np.ndarray]:
    """Return a segmentation as COCO's JSON has it: a mask, (height, width) uint8, or polygons, (n, 2) float64 each.

    Args:
        value: polygons, each a list of x and y by turns; or `counts`, a string or the lengths, with `size`.
        height: the picture's, which a mask must have; so with the width.

    Raises:
        BadMaskError: it is none.
    """
    if isinstance(value, dict):
        if (size := value.get("size")) is not None and size not in ([height, width], (height, width)):
            raise BadMaskError(f"a mask of size {str(size)[:40]}, and a picture of {[height, width]}")
        counts = value.get("counts")
        counts = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
        return _of_lengths(lengths_of(counts) if isinstance(counts, str) else counts, height, width)
    if not isinstance(value, list) or not value:
        raise BadMaskError("no polygon and no run-length encoding")
    return [_polygon(one) for one in value]


def _polygon(value: Any) -> np.ndarray:
    try:
        numbers = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.ndim != 1 or len(numbers) < 6 or len(numbers) % 2:
        raise BadMaskError("a polygon that is no list of three points or more, x and y by turns")
    if not np.isfinite(numbers).all():
        raise BadMaskError("a polygon with a coordinate that is no number")
    return numbers.reshape(-1, 2)


def drawn(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Return what lies in any of some polygons, (height, width) uint8, as COCO draws them. Raises BadMaskError."""
    from pycocotools import mask as coco

    if any(np.abs(points).max() > _FARTHEST for points in polygons):
        raise BadMaskError(f"a polygon with a coordinate beyond {_FARTHEST} pixels of the image")
    edges = sum(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum() for points in polygons)
    if edges > _LONGEST:
        raise BadMaskError(f"polygons of {edges:.0f} pixels of edges, more than {_LONGEST}")
    encoded = coco.frPyObjects([points.reshape(-1).tolist() for points in polygons], height, width)
    found: np.ndarray = coco.decode(coco.merge(encoded))
    return found


def lengths_of(text: str) -> list[int]:
    """Return the lengths of the runs that a string holds. Raises BadMaskError."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift == 5 * _MOST_GROUPS:
            raise BadMaskError("a run-length encoding that is damaged")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise BadMaskError("a run-length encoding that ends too early")
    return lengths


def _of_lengths(lengths: Any, height: int, width: int) -> np.ndarray:
    whole = isinstance(lengths, list) and all(type(length) is int and length >= 0 for length in lengths)
    if not whole or sum(lengths) != height * width:
        total = sum(lengths) if whole else "no list of whole numbers"
        raise BadMaskError(f"runs of {total} pixels, and a picture of {height} x {width}")
    flat = np.zeros(height * width, np.uint8)
    ends = list(accumulate(lengths))
    for start, end in zip(ends[0::2], ends[1::2], strict=False):
        flat[start:end] = 1
    return flat.reshape(width, height).T
