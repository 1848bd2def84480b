"""Raw data of the task `scenes`: pictures composed of real digits over clutter, with a box and a mask of each digit.

The digits are the 5,000 of the task `mnist`. Nobody took these pictures: 1 to 5 digits are scaled, turned and put on a
grey slope, among strokes and scraps of other digits, as in "cluttered MNIST" (V. Mnih et al., "Recurrent models of
visual attention", NeurIPS 2014). A box is what is seen of a digit, and so is its mask.

A digit's split is drawn before any scene is made, scraps included: no digit is in scenes of two splits, nor in one with
labels and one without.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as Picture
from PIL import ImageDraw

from graftline.durable import write_atomic
from graftline.importers import mnist
from graftline.importers.packages import encode_table
from graftline.raw.media import ENCODED
from graftline.values import rle

SCENES = "scenes.parquet"
SEED = 14
SIDE = 64
"""Height and width of a scene, in pixels."""
COUNTS = {"train": 900, "val": 250, "test": 600, "unlabelled": 3000}
"""Scenes of each part; `unlabelled` ones are of the split train, and have no objects."""
DIGITS = {"train": 1600, "val": 400, "test": 1000, "unlabelled": 2000}
"""Of the 5,000 digits, those that the scenes of a part are made of."""
MOST = 5
"""Digits of a scene; from 1 on all numbers are equally frequent."""
LEVELS = 17
"""A pixel is a multiple of it: 16 levels of grey, and a third of the bytes."""
INK = 0.35
"""Share of full ink from which on a pixel is of a digit's mask."""
OVERLAP = 0.1
"""Share of a digit's box that an earlier digit's box may cover."""
_SMALL = 28
"""Height and width of a digit's picture."""


@dataclass(frozen=True)
class Scene:
    """A picture, and what is in it."""

    pixels: np.ndarray
    """(SIDE, SIDE) uint8."""
    boxes: list[list[int]]
    """Left and upper edge, width, height, of each digit."""
    classes: list[str]
    masks: list[np.ndarray]
    """(SIDE, SIDE) bool each."""
    digits: list[int]
    """Rows of the task `mnist`."""


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/scenes.parquet and return its path; equal bytes on every run with one NumPy, Pillow and pyarrow.

    Columns: `image` (PNG, 64 x 64, grey, with its path), `objects` (null without labels; else lists `bbox`, `category`,
    `segmentation` as COCO has them, and `digit`, the row of the task `mnist`), and `split`. `source` is as of `mnist`.

    Raises:
        InputError: `source` is missing or is not the expected file.
        GraftlineError: the package could not be downloaded.
    """
    path = out / SCENES
    found = mnist.read(source)
    images = found["image"].combine_chunks().flatten().to_numpy().reshape(-1, _SMALL, _SMALL)
    table = as_table(scenes(images, found["label"].to_numpy()))
    write_atomic(path, encode_table(table, ["split"], group_rows=1000))
    return path


def parts(count: int) -> dict[str, np.ndarray]:
    """Return the digits of each part, of so many, by row."""
    order = np.random.default_rng([SEED, 0]).permutation(count)
    ends = np.cumsum([round(count * share / sum(DIGITS.values())) for share in DIGITS.values()])
    return dict(zip(DIGITS, np.split(order, ends[:-1]), strict=True))


def scenes(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, Scene]]:
    """Yield all scenes, each with its part; `images` are (n, 28, 28) uint8 digits, `labels` what they are, (n,)."""
    for number, (part, digits) in enumerate(parts(len(images)).items(), start=1):
        rng = np.random.default_rng([SEED, number])
        for _ in range(COUNTS[part]):
            yield part, composed(images, labels, digits, rng)


def composed(images: np.ndarray, labels: np.ndarray, digits: np.ndarray, rng: np.random.Generator) -> Scene:
    """Return a scene of some of these digits."""
    wanted = int(rng.integers(1, MOST + 1))
    inks, rows, taken = list[np.ndarray](), list[int](), list[tuple[int, int, int, int]]()
    for _ in range(8 * wanted):  # of places that are free; a scene may get fewer digits
        row = int(rng.choice(digits))
        small = turned(images[row], float(rng.uniform(0.65, 1.25)), float(rng.uniform(-15, 15)))
        height, width = small.shape
        x, y = int(rng.integers(0, SIDE - width + 1)), int(rng.integers(0, SIDE - height + 1))
        box = (x, y, x + width, y + height)
        if any(_covers(other, box) > OVERLAP or _covers(box, other) > OVERLAP for other in taken):
            continue
        ink = np.zeros((SIDE, SIDE), np.float32)
        ink[y : y + height, x : x + width] = small * rng.uniform(0.7, 1.0)
        inks.append(ink)
        rows.append(row)
        taken.append(box)
        if len(inks) == wanted:
            break
    drawn = np.stack(inks)
    top = drawn.argmax(axis=0)
    masks = [(top == place) & (ink >= INK * ink.max()) for place, ink in enumerate(inks)]
    pixels = np.maximum(clutter(images, digits, rng, drawn.max(axis=0)), drawn.max(axis=0))
    levels = np.rint(pixels * 15).astype(np.uint8) * LEVELS
    return Scene(levels, [_box(mask) for mask in masks], [str(labels[row]) for row in rows], masks, rows)


def turned(image: np.ndarray, scale: float, degrees: float) -> np.ndarray:
    """Return a digit scaled and turned, from 0 to 1, without empty rows and columns at its border."""
    side = round(_SMALL * scale)
    picture = Picture.fromarray(image).resize((side, side), Picture.Resampling.BICUBIC)
    ink = np.asarray(picture.rotate(degrees, Picture.Resampling.BICUBIC, expand=True), np.float32) / 255
    seen = ink >= INK * ink.max()
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def clutter(images: np.ndarray, digits: np.ndarray, rng: np.random.Generator, over: np.ndarray) -> np.ndarray:
    """Return what is behind the digits: a slope of grey, strokes, and scraps of other digits; none lies in them.

    `over` is the digits' ink, (SIDE, SIDE).
    """
    steps = np.linspace(0, 1, SIDE, dtype=np.float32)
    low, along, down = rng.uniform(0, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
    ground = np.clip(low + along * steps[None, :] + down * steps[:, None], 0, 0.35)
    page = Picture.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(1, 4))):
        points = [tuple(map(float, point)) for point in rng.uniform(-8, SIDE + 8, (int(rng.integers(2, 4)), 2))]
        pen.line(points, fill=int(rng.integers(90, 220)), width=int(rng.integers(1, 3)))
    scraps = np.asarray(page, np.float32) / 255
    for _ in range(int(rng.integers(4, 10))):
        size = int(rng.integers(6, 11))
        row, (x, y) = int(rng.choice(digits)), rng.integers(4, _SMALL - 4 - size, 2)
        at_x, at_y = rng.integers(0, SIDE - size, 2)
        scrap = images[row, y : y + size, x : x + size].astype(np.float32) / 255 * rng.uniform(0.5, 0.9)
        place = scraps[at_y : at_y + size, at_x : at_x + size]
        np.maximum(place, scrap, out=place)
    return np.where(over > 0.1, 0, np.maximum(ground, scraps))


def _covers(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return the share of the other box that a box covers."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0, width) * max(0, height) / ((other[2] - other[0]) * (other[3] - other[1]))


def _box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)).tolist(), np.flatnonzero(mask.any(axis=0)).tolist()
    return [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]


def as_table(found: Iterator[tuple[str, Scene]]) -> pa.Table:
    """Return one row a scene."""
    images, objects, splits = list[dict[str, Any]](), list[dict[str, Any] | None](), list[str]()
    for number, (part, scene) in enumerate(found):
        file = io.BytesIO()
        Picture.fromarray(scene.pixels).save(file, "PNG", optimize=True)
        images.append({"bytes": file.getvalue(), "path": f"{number:05}.png"})
        splits.append("train" if part == "unlabelled" else part)
        masks = [json.dumps({"size": [SIDE, SIDE], "counts": rle.encode(mask)}) for mask in scene.masks]
        labels = {"bbox": scene.boxes, "category": scene.classes, "segmentation": masks, "digit": scene.digits}
        objects.append(None if part == "unlabelled" else labels)
    kind = pa.struct([
        ("bbox", pa.list_(pa.list_(pa.int64()))), ("category", pa.list_(pa.string())),
        ("segmentation", pa.list_(pa.string())), ("digit", pa.list_(pa.int64())),
    ])  # fmt: skip
    return pa.table(
        {"image": pa.array(images, ENCODED), "objects": pa.array(objects, kind), "split": pa.array(splits, pa.string())}
    )
