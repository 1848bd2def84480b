"""The splits of datasets of one feature, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftline.dataset import read_split
from graftline.errors import InputError
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn


@dataclass(frozen=True)
class Images:
    """Images of one split."""

    pixels: Pixels
    """n images."""
    labels: np.ndarray | None
    """(n, ...): of classes int64 indices into the schema's; None for unlabelled images."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


@dataclass(frozen=True)
class Texts:
    """Documents of one split."""

    texts: list[str]
    """n documents."""
    labels: np.ndarray | None
    """(n, ...): of classes int64 indices into the schema's; None for unlabelled documents."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


@dataclass(frozen=True)
class Tagged:
    """Sentences of one split, divided into words."""

    words: list[list[str]]
    """n sentences."""
    tags: list[np.ndarray] | None
    """n arrays, (number of words,), int64 class indices into the schema's classes; None without labels."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


def read_images(dataset: Path, split: str) -> Images:
    """Return the images of a split. Raises InputError as `read_split` does."""
    found = read_split(dataset, split, [ImageColumn])
    (pixels,) = found.features
    return Images(pixels, found.label, found.rows)


def read_texts(dataset: Path, split: str) -> Texts:
    """Return the documents of a split. Raises InputError as `read_split` does."""
    found = read_split(dataset, split, [TextColumn])
    (texts,) = found.features
    return Texts(texts, found.label, found.rows)


def read_tagged(dataset: Path, split: str) -> Tagged:
    """Return the sentences of a split. Raises InputError as `read_split` does, or if words and tags do not match."""
    found = read_split(dataset, split, [TokensColumn])
    (words,), tags = found.features, found.label
    for place, row in enumerate(words) if tags is not None else ():
        if len(row) != len(tags[place]):
            raise InputError(
                dataset / f"{split}.parquet",
                f"row {found.rows[place]} has {len(row)} words, {len(tags[place])} tags",
                fix="run validate again",
            )
    return Tagged(words, tags, found.rows)
