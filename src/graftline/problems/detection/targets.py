"""What a dense head is to say of images: where the middles of objects are, and what box and mask each has.

Each object is a hill on the map of its class, 1 in the middle (CenterNet: X. Zhou et al., 2019, arXiv:1904.07850),
as wide and as high as its box (TTFNet: Z. Liu et al., 2019, arXiv:1909.00700); the places on the hill learn its box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from graftline.learning.augment import Changes
from graftline.learning.device import send
from graftline.problems.detection.boxes import images_of, offsets_of
from graftline.values import rle
from graftline.values.boxes import Objects

_WIDTHS = 7.0
"""Standard deviations of a hill in its box."""
_ON_HILL = 0.3
"""Height from which on a place learns the box."""
_LEAST_LEFT = 0.4
"""Share of a box that must be left in a warped image for the object to count; less is hard to tell."""


@dataclass(frozen=True)
class Grid:
    """The places of a map on an image."""

    rows: int
    columns: int
    stride: int
    """Pixels from one to the next; the first is half of it from the border."""

    @classmethod
    def of(cls, height: int, width: int, stride: int) -> Grid:
        return cls(-(-height // stride), -(-width // stride), stride)

    def middles(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows,) y and (columns,) x of the places, in pixels."""
        y, x = ((np.arange(count, dtype=np.float32) + 0.5) * self.stride for count in (self.rows, self.columns))
        return y, x

    def cells(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (m,) rows and columns of the places that the middles of (m, 4) boxes are nearest to."""
        x, y = ((boxes[:, side] + boxes[:, side + 2]) / 2 // self.stride for side in (0, 1))
        return np.clip(y, 0, self.rows - 1).astype(np.int64), np.clip(x, 0, self.columns - 1).astype(np.int64)


@dataclass(frozen=True)
class Targets:
    """What is to be said of n images."""

    heat: torch.Tensor
    """(n, classes, rows, columns) float32: 1 in the middle of an object of the class, falling to 0."""
    counted: torch.Tensor
    """(n, 1, rows, columns) float32: 0 where a crowd makes it unclear what is right, and no object is told, else 1."""
    places: torch.Tensor
    """(p, 3) int64: image, row and column of each place that learns a box."""
    boxes: torch.Tensor
    """(p, 4) float32: that box."""
    shares: torch.Tensor
    """(p,) float32: how much the place counts; those of an object are 1 together."""
    middles: torch.Tensor
    """(m, 3) int64: image, row and column of the middle of each object."""
    outlines: torch.Tensor
    """(m, 4) float32: the objects' boxes."""
    masks: torch.Tensor | None
    """(m, height, width) float32: 1 inside, 0 outside; None without masks."""

    def on(self, place: torch.device) -> Targets:
        """Return them on a device."""
        return Targets(*(None if of is None else send(of, place) for of in vars(self).values()))  # type: ignore[arg-type]


def targets(objects: Objects, masks: torch.Tensor | None, classes: int, grid: Grid) -> Targets:
    """Return what is to be said of images with these objects; `masks` are those of all of them."""
    images, single = images_of(objects.offsets), ~objects.crowd
    of, boxes = images[single], objects.boxes[single]
    hills, rows, columns = _hills(boxes, grid)
    heat = np.zeros((len(objects) * classes, grid.rows, grid.columns), np.float32)
    np.maximum.at(heat, of * classes + objects.classes[single], hills)
    places, owner, shares = _on_hills(hills, of)
    middles = np.stack([of, rows, columns], axis=1)
    return Targets(
        torch.from_numpy(heat.reshape(len(objects), classes, grid.rows, grid.columns)),
        torch.from_numpy(_counted(objects, images, hills, grid)),
        torch.from_numpy(places),
        torch.from_numpy(boxes[owner]),
        torch.from_numpy(shares),
        torch.from_numpy(middles),
        torch.from_numpy(boxes),
        None if masks is None else masks[torch.from_numpy(single)],
    )


def _hills(boxes: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (m, rows, columns) float32 hills of (m, 4) boxes, and the row and column of each one's top."""
    rows, columns = grid.cells(boxes)
    logs = []
    for side, middles, top in ((1, grid.middles()[0], rows), (0, grid.middles()[1], columns)):
        middle = (boxes[:, side] + boxes[:, side + 2]) / 2
        deviation = np.maximum((boxes[:, side + 2] - boxes[:, side]) / _WIDTHS, grid.stride / 3)
        away = np.square((middles - middle[:, None]) / deviation[:, None]) / 2
        logs.append(np.maximum(away - away[np.arange(len(boxes)), top][:, None], 0))
    return np.exp(-(logs[0][:, :, None] + logs[1][:, None])), rows, columns


def _on_hills(hills: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places that learn boxes: (p, 3) image, row and column, (p,) the box, (p,) its share.

    A place on two hills learns the box of the higher one.
    """
    owner, row, column = np.nonzero(hills >= _ON_HILL)
    height, of = hills[owner, row, column], images[owner]
    order = np.lexsort([owner, -height, column, row, of])
    of, row, column, owner, height = (each[order] for each in (of, row, column, owner, height))
    places = np.stack([of, row, column], axis=1)
    first = np.ones(len(places), dtype=np.bool_)
    first[1:] = (places[1:] != places[:-1]).any(axis=1)
    owner, height = owner[first], height[first]
    total = np.bincount(owner, height, minlength=len(hills))
    return places[first], owner, (height / total[owner]).astype(np.float32)


def _counted(objects: Objects, images: np.ndarray, hills: np.ndarray, grid: Grid) -> np.ndarray:
    """Return (n, 1, rows, columns) float32: 0 in crowds, but for what is on the hill of an object that is told."""
    unclear, told = np.zeros((2, len(objects), grid.rows, grid.columns), np.bool_)
    y, x = grid.middles()
    for place in np.flatnonzero(objects.crowd):
        x0, y0, x1, y1 = objects.boxes[place]
        unclear[images[place]] |= ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))
    np.logical_or.at(told, images[~objects.crowd], hills >= _ON_HILL)
    counted: np.ndarray = (told | ~unclear)[:, None].astype(np.float32)
    return counted


def masks_of(objects: Objects, height: int, width: int) -> torch.Tensor:
    """Return (m, height, width) float32 masks of all objects."""
    texts = [text for place in range(len(objects)) for text in objects.masks(place)]
    found = np.zeros((len(texts), height, width), np.float32)
    for place, text in enumerate(texts):
        found[place] = rle.decode(text, height, width)
    return torch.from_numpy(found)


def warped(
    objects: Objects, masks: torch.Tensor | None, changes: Changes, height: int, width: int
) -> tuple[Objects, torch.Tensor | None]:
    """Return the objects of images after `changes`, and their masks; without what of them has left the image.

    An object of which little is left is a crowd: it is not asked for, and its place is not learned as empty either. A
    turned box is the one around its four corners.
    """
    images = images_of(objects.offsets)
    half = np.array([width, height], np.float32) / 2
    maps = changes.maps.double().numpy()[images]  # from new places to old ones, in half images
    corners = objects.boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] / half - 1
    new = np.linalg.solve(maps[:, None, :, :2], (corners - maps[:, None, :, 2])[..., None])[..., 0]
    whole = np.concatenate([new.min(axis=1), new.max(axis=1)], axis=1)
    boxes = whole.clip(-1, 1)
    area, left = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (whole, boxes))
    stays = left > 0
    crowd = objects.crowd | (left < _LEAST_LEFT * area)
    pixels = ((boxes + 1) * np.tile(half, 2)).astype(np.float32)
    counts = np.bincount(images[stays], minlength=len(objects))
    if masks is not None:
        kept = torch.from_numpy(stays)
        masks = masks[kept]
        if len(masks):
            moves = Changes(changes.maps[torch.from_numpy(images)][kept], None)
            masks = (moves.apply(masks[:, None], "black")[:, 0] > 0.5).float()
    return Objects(offsets_of(counts), pixels[stays], objects.classes[stays], crowd[stays]), masks
