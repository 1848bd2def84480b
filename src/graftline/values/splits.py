"""The splits of datasets of one feature, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from graftline.dataset import UNLABELLED, read_schema, read_split
from graftline.errors import InputError
from graftline.values.audio import AudioColumn
from graftline.values.clips import Clips
from graftline.values.image import ImageColumn
from graftline.values.items import ItemsColumn
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


@dataclass(frozen=True)
class Recordings:
    """Clips of one split."""

    clips: Clips
    """n clips."""
    labels: Any
    """n labels in their kind's form (`StoredLabel.values`): of classes (n,) int64 indices; None without."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


@dataclass(frozen=True)
class Histories:
    """Histories of one split."""

    items: list[list[str]]
    """n histories, each of at least two items."""
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


def read_clips(dataset: Path, split: str) -> Recordings:
    """Return the clips of a split. Raises InputError as `read_split` does."""
    found = read_split(dataset, split, [AudioColumn])
    (clips,) = found.features
    return Recordings(clips, found.label, found.rows)


def read_histories(dataset: Path, split: str) -> Histories:
    """Return the histories of a split: of all but test without cold items, and of val's in the pool the given part.

    So neither what a model is asked about val nor cold items are known to pretraining. A history that has fewer than
    two items left is left out. Raises InputError as `read_split` does.
    """
    found = read_split(dataset, split, [ItemsColumn])
    (histories,), column = found.features, read_schema(dataset).only(ItemsColumn)
    if split != "test":
        cold = {item for history in histories for item in history if column.is_cold(item)} if column.cold else set()
        histories = [[item for item in history if item not in cold] for history in histories]
    kept = [place for place, history in enumerate(histories) if len(history) > 1]
    if split == UNLABELLED:
        asked = set(pq.read_table(dataset / "val.parquet", columns=["row"])["row"].to_pylist())
        for place in kept:
            if found.rows[place] in asked:
                histories[place] = column.divide(histories[place])[0]
        kept = [place for place in kept if len(histories[place]) > 1]
    return Histories([histories[place] for place in kept], found.rows[kept])
