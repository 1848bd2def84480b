"""The dataset that `validate` makes, as the later components read it.

train.parquet val.parquet test.parquet   good labelled rows: the columns of the contract, and `row`
unlabelled.parquet                       every good row outside test, without its label
quarantine.parquet                       row, rule, value of every failing row
rows.parquet                             row, sha256 of its content, split: the row index
schema.json                              the columns, as below
profile.json                             distributions, to compare the next data with

A task without labels has its rows in the same three splits, only without a label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graftline.canonical import read_json
from graftline.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEMA = "schema.json"
UNLABELLED = "unlabelled"
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class ImageColumn:
    """A column of grey images, stored as a fixed-size list of pixels."""

    name: str
    shape: tuple[int, int]
    """Height and width, in pixels."""
    maximum: float
    """The pixel value of full brightness."""

    def as_dict(self) -> dict[str, object]:
        return {"type": "image", "name": self.name, "shape": list(self.shape), "maximum": self.maximum}


@dataclass(frozen=True)
class TextColumn:
    """A column of strings, one document a row; the label is one class a row."""

    name: str

    def as_dict(self) -> dict[str, object]:
        return {"type": "text", "name": self.name}


@dataclass(frozen=True)
class TokensColumn:
    """A column of lists of words, one sentence a row; the label is a list of tags, one a word."""

    name: str

    def as_dict(self) -> dict[str, object]:
        return {"type": "tokens", "name": self.name}


Feature = ImageColumn | TextColumn | TokensColumn


@dataclass(frozen=True)
class Schema:
    """What the columns of a dataset mean: `Schema.from_dict(schema.as_dict()) == schema`."""

    feature: Feature
    """What a model sees."""
    label: str | None
    """The label column's name; None for a task without labels."""
    classes: tuple[int | str, ...]
    """The label set, in the order of class indices; empty without labels."""

    @property
    def image(self) -> ImageColumn:
        """The feature, in code that is for images only."""
        assert isinstance(self.feature, ImageColumn)
        return self.feature

    def as_dict(self) -> dict[str, object]:
        return {"feature": self.feature.as_dict(), "label": self.label, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Schema:
        """Return the schema for which `as_dict` returns `values`.

        Raises:
            KeyError, TypeError, ValueError: there is no such schema.
        """
        label, classes = values["label"], values["classes"]
        if not (label is None or isinstance(label, str)) or not isinstance(classes, list):
            raise TypeError("label or classes")
        return cls(_feature(values["feature"]), label, tuple(classes))


def _feature(values: dict[str, Any]) -> Feature:
    kind, name = values["type"], values["name"]
    if kind == "image":
        height, width = values["shape"]
        return ImageColumn(name, (height, width), values["maximum"])
    kinds: dict[str, type[TextColumn | TokensColumn]] = {"text": TextColumn, "tokens": TokensColumn}
    return kinds[kind](name)


@dataclass(frozen=True)
class Images:
    """Images of one split in memory."""

    pixels: np.ndarray
    """(n, height, width), float32 from 0 to 1."""
    labels: np.ndarray | None
    """(n,), int64 class indices into the schema's classes; None for unlabelled images."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


@dataclass(frozen=True)
class Texts:
    """Documents of one split in memory."""

    texts: list[str]
    """n documents."""
    labels: np.ndarray | None
    """(n,), int64 class indices into the schema's classes; None for unlabelled documents."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


@dataclass(frozen=True)
class Tagged:
    """Sentences of one split in memory, split into words."""

    words: list[list[str]]
    """n sentences."""
    tags: list[np.ndarray] | None
    """n arrays, (number of words,), int64 class indices into the schema's classes; None without labels."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


def read_schema(dataset: Path) -> Schema:
    """Return the schema of the dataset folder. Raises InputError if it has none."""
    values = read_json(dataset / SCHEMA)
    try:
        return Schema.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(dataset / SCHEMA, f"not a schema ({error!r})", fix="run validate again") from None


def read_images(dataset: Path, split: str) -> Images:
    """Return the images of `split` (train, val, test or unlabelled), ordered by row number.

    Raises:
        InputError: the split has no rows, or is not as the dataset's schema says, or holds no images.
    """
    return _read(dataset, split, ImageColumn, _images)


def read_texts(dataset: Path, split: str) -> Texts:
    """Return the documents of `split` (train, val, test or unlabelled), ordered by row number.

    Raises:
        InputError: the split has no rows, or is not as the dataset's schema says, or holds no documents.
    """
    return _read(dataset, split, TextColumn, _texts)


def read_tagged(dataset: Path, split: str) -> Tagged:
    """Return the sentences of `split` (train, val, test or unlabelled), ordered by row number.

    Raises:
        InputError: the split has no rows, or is not as the dataset's schema says, or holds no words.
    """
    return _read(dataset, split, TokensColumn, _tagged)


def _read(
    dataset: Path, split: str, kind: type[Feature], convert: Callable[[pa.Table, Schema, str | None], _Read]
) -> _Read:
    """Return what `convert` makes of the split's rows, the schema and the label column (None without)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = read_schema(dataset)
    if not isinstance(schema.feature, kind):
        raise InputError(
            dataset / SCHEMA, f"the feature is of type {schema.feature.as_dict()['type']}",
            expected=_KINDS[kind], fix="choose an objective and a head for this type of data",
        )  # fmt: skip
    path = dataset / f"{split}.parquet"
    try:
        table = pq.read_table(path).sort_by("row")
        if table.num_rows == 0:
            raise InputError(path, "no rows", fix="give more data, or change the split fractions")
        return convert(table, schema, schema.label if split != UNLABELLED else None)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(
            path, f"not as {SCHEMA} says ({type(error).__name__}: {error})", fix="run validate again"
        ) from None


_KINDS: dict[type[Feature], str] = {ImageColumn: "image", TextColumn: "text", TokensColumn: "tokens"}


def _images(table: pa.Table, schema: Schema, label: str | None) -> Images:
    import numpy as np

    flat = table[schema.image.name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    pixels = (flat.astype(np.float32) / np.float32(schema.image.maximum)).reshape(-1, *schema.image.shape)
    return Images(pixels, _labels(table, schema, label), table["row"].to_numpy())


def _texts(table: pa.Table, schema: Schema, label: str | None) -> Texts:
    texts: list[str] = table[schema.feature.name].to_pylist()
    return Texts(texts, _labels(table, schema, label), table["row"].to_numpy())


def _tagged(table: pa.Table, schema: Schema, label: str | None) -> Tagged:
    import numpy as np

    words: list[list[str]] = table[schema.feature.name].to_pylist()
    tags = None
    if label is not None:
        index = {tag: number for number, tag in enumerate(schema.classes)}
        found = table[label].to_pylist()
        tags = [np.array([index[tag] for tag in row], dtype=np.int64) for row in found]
        unequal = next((i for i, row in enumerate(words) if len(row) != len(tags[i])), None)
        if unequal is not None:
            raise ValueError(
                f"row {table['row'][unequal]} has {len(words[unequal])} words, {len(tags[unequal])} tags"
            )
    return Tagged(words, tags, table["row"].to_numpy())


def _labels(table: pa.Table, schema: Schema, label: str | None) -> np.ndarray | None:
    """Return (n,) int64 class indices, or None without a label column."""
    import numpy as np

    if label is None:
        return None
    index = {name: number for number, name in enumerate(schema.classes)}
    return np.array([index[name] for name in table[label].to_pylist()], dtype=np.int64)
