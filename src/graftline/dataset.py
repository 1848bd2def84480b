"""The dataset that `validate` makes, as the later components read it.

train.parquet val.parquet test.parquet   good labelled rows: the columns of the contract, and `row`
unlabelled.parquet                       every good row outside test, without its label
quarantine.parquet                       row, rule, value of every failing row
rows.parquet                             row, sha256 of its content, split: the row index
schema.json                              the columns, as below
<column>.npy                             pixels of a column of encoded pictures: see values/pixels.py
profile.json                             distributions, to compare the next data with

A task without labels has its rows in the same three splits, only without a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.canonical import read_json
from graftline.errors import InputError
from graftline.values.column import StoredFeature, StoredLabel
from graftline.values.registry import FEATURE_TYPES, LABEL_TYPES

SCHEMA = "schema.json"
UNLABELLED = "unlabelled"
_F = TypeVar("_F", bound=StoredFeature)


@dataclass(frozen=True)
class Schema:
    """What the columns of a dataset mean: `Schema.from_dict(schema.as_dict()) == schema`."""

    feature: StoredFeature
    """What a model sees: the first column of it, in the contract's order."""
    label: str | None
    """The label column's name; None for a task without labels."""
    classes: tuple[Any, ...] = ()
    """The label set, in the order of class indices; empty without labels, or where they are no classes."""
    more: tuple[StoredFeature, ...] = ()
    """Further columns that a model sees."""
    label_type: str = ""
    """The word for the label's form; if left out, the feature's usual one."""
    weight: str | None = None
    """The column that says how much a row counts, above 0; None where all count alike."""
    group: str | None = None
    """The column whose equal values come together, in one split; None where each row stands by itself."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_type", self.label_type or self.feature.label_type)

    @property
    def features(self) -> tuple[StoredFeature, ...]:
        """All columns that a model sees."""
        return (self.feature, *self.more)

    @property
    def label_column(self) -> StoredLabel | None:
        """The column that a model learns to tell; None for a task without labels."""
        return None if self.label is None else LABEL_TYPES[self.label_type](self.label, self.classes)

    def only(self, kind: type[_F]) -> _F:
        """Return the one feature, which is of `kind`. Raises InputError if it is of another, or one of several."""
        self.expect([kind])
        assert isinstance(self.feature, kind)
        return self.feature

    def expect(self, kinds: Sequence[type[StoredFeature]], where: str | Path = SCHEMA) -> None:
        """Raise InputError unless the features are of these kinds, in this order."""
        found = [feature.type for feature in self.features]
        if found != [kind.type for kind in kinds]:
            raise InputError(
                where,
                f"the feature is of type {' and '.join(found)}",
                expected=" and ".join(kind.type for kind in kinds),
                fix="choose an objective and a head for this type of data",
            )

    def as_dict(self) -> dict[str, object]:
        """Return plain data, for JSON; what is as usual is left out."""
        return {
            "feature": self.feature.as_dict(),
            "label": self.label,
            "classes": list(self.classes),
            **({"more": [feature.as_dict() for feature in self.more]} if self.more else {}),
            **({"label_type": self.label_type} if self.label_type != self.feature.label_type else {}),
            **({"weight": self.weight} if self.weight is not None else {}),
            **({"group": self.group} if self.group is not None else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Schema:
        """Return the schema for which `as_dict` returns `values`.

        Raises:
            KeyError, TypeError, ValueError: there is no such schema.
        """
        label, classes, weight, group = values["label"], values["classes"], values.get("weight"), values.get("group")
        names = (label, weight, group)
        if not all(name is None or isinstance(name, str) for name in names) or not isinstance(classes, list):
            raise TypeError("label, classes, weight or group")
        first, *more = (
            FEATURE_TYPES[feature["type"]].from_dict(feature)
            for feature in (values["feature"], *values.get("more", ()))
        )
        kind = values.get("label_type", first.label_type)
        if kind not in LABEL_TYPES:
            raise ValueError(f"label_type {kind!r}")
        return cls(first, label, tuple(classes), tuple(more), kind, weight, group)


@dataclass(frozen=True)
class Split:
    """The rows of one split in memory, ordered by row number."""

    features: tuple[Any, ...]
    """Each column that a model sees, n values in its kind's form (`StoredFeature.values`)."""
    label: Any
    """n labels in their kind's form (`StoredLabel.values`); None without."""
    rows: np.ndarray
    """(n,), int64 row numbers in the raw data."""


def read_schema(dataset: Path) -> Schema:
    """Return the schema of the dataset folder. Raises InputError if it has none."""
    values = read_json(dataset / SCHEMA)
    try:
        return Schema.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(dataset / SCHEMA, f"not a schema ({error!r})", fix="run validate again") from None


def read_split(dataset: Path, split: str, kinds: Sequence[type[StoredFeature]]) -> Split:
    """Return a split (train, val, test or unlabelled) whose features are of these kinds, in this order.

    Raises:
        InputError: the split has no rows, or is not as the dataset's schema says, or its features are of other kinds.
    """
    schema = read_schema(dataset)
    schema.expect(kinds, dataset / SCHEMA)
    path = dataset / f"{split}.parquet"
    label = schema.label_column if split != UNLABELLED else None
    try:
        table = pq.read_table(path).sort_by("row")
        if table.num_rows == 0:
            raise InputError(path, "no rows", fix="give more data, or change the split fractions")
        features = tuple(feature.opened(table[feature.name], dataset) for feature in schema.features)
        labels = None if label is None else label.values(table[label.name])
        return Split(features, labels, table["row"].to_numpy())
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(
            path, f"not as {SCHEMA} says ({type(error).__name__}: {error})", fix="run validate again"
        ) from None


def numbered(values: pa.ChunkedArray) -> np.ndarray:
    """Return (n,) int64: a number for each value, from 0 in the order in which they first come, and behind them one of
    its own for each null."""
    codes = values.combine_chunks().dictionary_encode().indices
    numbers: np.ndarray = codes.fill_null(-1).to_numpy().astype(np.int64)
    alone = np.flatnonzero(numbers < 0)
    numbers[alone] = numbers.max(initial=-1) + 1 + np.arange(len(alone))
    return numbers
