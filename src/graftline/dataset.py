"""The dataset that `validate` makes, as the later components read it.

train.parquet val.parquet test.parquet   good labelled rows: the columns of the contract, and `row`
unlabelled.parquet                       every good row outside test, without its label
quarantine.parquet                       row, rule, value of every failing row
rows.parquet                             row, sha256 of its content, split: the row index
schema.json                              the columns, as below
profile.json                             distributions, to compare the next data with
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.canonical import read_json
from graftline.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEMA = "schema.json"
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class ImageColumn:
    """A column of grey images, stored as a fixed-size list of pixels."""

    name: str
    shape: tuple[int, int]
    """Height and width, in pixels."""
    maximum: float
    """The pixel value of full brightness."""


@dataclass(frozen=True)
class Schema:
    """What the columns of a dataset mean."""

    image: ImageColumn
    label: str
    """The label column's name."""
    classes: tuple[int | str, ...]
    """The label set, in the order of class indices."""

    def as_dict(self) -> dict[str, object]:
        return {
            "image": {
                "name": self.image.name,
                "shape": list(self.image.shape),
                "maximum": self.image.maximum,
            },
            "label": self.label,
            "classes": list(self.classes),
        }

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Schema:
        """Return the schema for which `as_dict` returns `values`."""
        image = values["image"]
        assert isinstance(image, dict)
        classes = values["classes"]
        assert isinstance(classes, list)
        height, width = image["shape"]
        return cls(
            ImageColumn(image["name"], (height, width), image["maximum"]),
            str(values["label"]),
            tuple(classes),
        )


@dataclass(frozen=True)
class Images:
    """Images of one split in memory."""

    pixels: np.ndarray
    """(n, height, width), float32 from 0 to 1."""
    labels: np.ndarray | None
    """(n,), int64 class indices into the schema's classes; None for unlabelled images."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


def read_schema(dataset: Path) -> Schema:
    """Return the schema of the dataset folder. Raises InputError if it has none."""
    values = read_json(dataset / SCHEMA)
    try:
        return Schema.from_dict(values)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise InputError(dataset / SCHEMA, f"not a schema ({error!r})", fix="run validate again") from None


def read_images(dataset: Path, split: str) -> Images:
    """Return the images of `split` (train, val, test or unlabelled), ordered by row number.

    Raises:
        InputError: the split has no rows, or is not as the dataset's schema says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = read_schema(dataset)
    path = dataset / f"{split}.parquet"
    try:
        table = pq.read_table(path).sort_by("row")
        if table.num_rows == 0:
            raise InputError(path, "no rows", fix="give more data, or change the split fractions")
        return _images(table, schema, labelled=split != UNLABELLED)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(
            path, f"not as {SCHEMA} says ({type(error).__name__}: {error})", fix="run validate again"
        ) from None


def _images(table: pa.Table, schema: Schema, *, labelled: bool) -> Images:
    import numpy as np

    flat = table[schema.image.name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    pixels = (flat.astype(np.float32) / np.float32(schema.image.maximum)).reshape(-1, *schema.image.shape)
    labels = None
    if labelled:
        index = {label: number for number, label in enumerate(schema.classes)}
        labels = np.array([index[label] for label in table[schema.label].to_pylist()], dtype=np.int64)
    return Images(pixels, labels, table["row"].to_numpy())
