"""What a dense head is to say of images: where the middles of objects are, and what box and mask each has.

Each object is a hill on the map of its class, 1 in the middle (CenterNet: X. Zhou et al., 2019, arXiv:1904.07850),
as wide and as high as its box (TTFNet: Z. Liu et al., 2019, arXiv:1909.00700); the places on the hill learn its box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
class Masks:
    """What is to be said of objects' masks: only what is in an object's box is learned."""

    cells: torch.Tensor
    """(c, 3) int64: object, row and column of each place of the grid that an object's box reaches into."""
    wanted: torch.Tensor
    """(c, stride * stride) float32: 1 where a pixel at the place is the object's, else 0."""
    shares: torch.Tensor
    """(c, stride * stride) float32: how much it counts; those in an object's box are 1 together, others 0."""
    stride: int

    def on(self, place: torch.device) -> Masks:
        """Return them on a device."""
        return Masks(send(self.cells, place), send(self.wanted, place), send(self.shares, place), self.stride)


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
    masks: Masks | None = None
    """None where none are learned."""

    @property
    def cells(self) -> torch.Tensor | None:
        """(c, 3) int64: image, row and column of each place at which a mask is learned, if any is."""
        if self.masks is None:
            return None
        of, row, column = self.masks.cells.T
        return torch.stack([self.middles[of, 0], row, column], dim=1)

    def on(self, place: torch.device) -> Targets:
        """Return them on a device."""
        masks = self.masks and self.masks.on(place)
        tensors = {name: send(of, place) for name, of in vars(self).items() if isinstance(of, torch.Tensor)}
        return Targets(**tensors, masks=masks)


def targets(objects: Objects, classes: int, grid: Grid) -> Targets:
    """Return what is to be said of images with these objects, but for masks."""
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
    )


def with_masks(wanted: Targets, masks: np.ndarray, grid: Grid, maps: np.ndarray | None = None) -> Targets:
    """Return targets on the CPU with the masks of their objects.

    Args:
        wanted: the targets.
        masks: (m, height, width) of the objects: 1 inside, 0 outside; in the images as they were before `maps`.
        grid: of the targets.
        maps: (m, 2, 3) what `Changes` has of each object's image; None of images as they are.
    """
    sides = np.array(masks.shape[:0:-1])  # width, height
    boxes = wanted.outlines.numpy().astype(np.float64)
    first = np.ceil(boxes[:, :2] - 0.5).clip(0).astype(np.int64)  # pixels whose middles are in the box
    last = np.floor(boxes[:, 2:] - 0.5).clip(max=sides - 1).astype(np.int64)
    some = (last >= first).all(axis=1, keepdims=True)
    cells = _places(first // grid.stride, np.where(some, last // grid.stride, -1))
    of, row, column = cells.T
    down, right = (np.arange(grid.stride).repeat(grid.stride), np.tile(np.arange(grid.stride), grid.stride))
    y, x = row[:, None] * grid.stride + down, column[:, None] * grid.stride + right  # (c, stride * stride)
    (x0, y0), (x1, y1) = first[of].T[..., None], last[of].T[..., None]
    inside, areas = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1), (last - first + 1).prod(axis=1)
    shown, shares = looked_up(masks, of[:, None], y, x, maps), inside / areas.astype(np.float32)[of, None]
    made = torch.from_numpy(cells), torch.from_numpy(shown.astype(np.float32)), torch.from_numpy(shares)
    return replace(wanted, masks=Masks(*made, grid.stride))


def _places(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return (c, 3) int64 number, row and column of the places in (m, 2) rectangles, of x and y of the corners."""
    across, along = np.maximum(last - first + 1, 0).T
    of = np.repeat(np.arange(len(first)), across * along)
    number = np.arange(len(of)) - np.repeat(np.cumsum(across * along) - across * along, across * along)
    row, column = np.divmod(number, across[of])
    return np.stack([of, first[of, 1] + row, first[of, 0] + column], axis=1)


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
    if not objects.crowd.any():
        return np.ones((len(objects), 1, grid.rows, grid.columns), np.float32)
    unclear, told = np.zeros((2, len(objects), grid.rows, grid.columns), np.bool_)
    y, x = grid.middles()
    for place in np.flatnonzero(objects.crowd):
        x0, y0, x1, y1 = objects.boxes[place]
        unclear[images[place]] |= ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))
    np.logical_or.at(told, images[~objects.crowd], hills >= _ON_HILL)
    counted: np.ndarray = (told | ~unclear)[:, None].astype(np.float32)
    return counted


def masks_of(objects: Objects, height: int, width: int, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return (m, height, width) uint8 masks, 1 inside and 0 outside: of all objects, or of those at (m,) places."""
    texts = [text for place in range(len(objects)) for text in objects.masks(place)]
    return rle.decode_all(texts if chosen is None else [texts[place] for place in chosen], height, width)


def looked_up(masks: np.ndarray, of: np.ndarray, y: np.ndarray, x: np.ndarray, maps: np.ndarray | None) -> np.ndarray:
    """Return bool: whether pixels of changed images show an object; what was outside of the image does not.

    Args:
        masks: (m, height, width) of the objects, in the images as they were: 1 inside, 0 outside.
        of: the pixels' objects.
        y: their rows, and
        x: columns, all three of shapes that go together.
        maps: (m, 2, 3) what `Changes` has of each object's image; None of images that are as they were.
    """
    height, width = masks.shape[1:]
    framed = np.zeros((len(masks), height + 3, width + 3), np.uint8)
    framed[:, 1:-2, 1:-2] = masks
    flat = framed.reshape(-1)
    if maps is None:
        left, above, right, below = x.clip(max=width), y.clip(max=height), 0, 0
    else:
        half = np.array([width, height], np.float32) / 2
        linear = maps[:, :, :2] * half[:, None] / half  # in pixels, of which the first one's middle is at 0
        moved = half * (maps[:, :, 2] + 1) - 0.5 + (linear @ (0.5 - half)[:, None])[:, :, 0]
        x, y = x.astype(np.float32), y.astype(np.float32)
        old = (linear[of, axis, 0] * x + linear[of, axis, 1] * y + moved[of, axis] for axis in (0, 1))
        x, y = (each.clip(-1, side) for each, side in zip(old, (width, height), strict=True))
        left, above = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        right, below = x - left, y - above
    start = (of * (height + 3) + above + 1) * (width + 3) + left + 1
    upper, lower = (flat[at] * (1 - right) + flat[at + 1] * right for at in (start, start + width + 3))
    found: np.ndarray = upper * (1 - below) + lower * below > 0.5
    return found


def warped(objects: Objects, changes: Changes, height: int, width: int) -> tuple[Objects, np.ndarray]:
    """Return the objects of images after `changes`, without those that have left the image, and the places of the
    others in `objects`.

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
    stays = np.flatnonzero(left > 0)
    crowd = objects.crowd | (left < _LEAST_LEFT * area)
    pixels = ((boxes + 1) * np.tile(half, 2)).astype(np.float32)
    counts = np.bincount(images[stays], minlength=len(objects))
    return Objects(offsets_of(counts), pixels[stays], objects.classes[stays], crowd[stays]), stays
