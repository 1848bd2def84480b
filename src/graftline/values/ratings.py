"""Ratings: what a user gave each item of the history in the same row, a number an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.raw.batches import RawBatch
from graftline.values.column import Column, Label, Role, StoredLabel
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.histograms import Histograms
from graftline.values.items import ItemsColumn, ids_of
from graftline.values.number import bounds, interval, parse_float
from graftline.values.rules import Rule, between
from graftline.values.scalar import is_string
from graftline.values.strings import count, lengths_of

_AGAIN = "rated_again"


class Ratings(Label):
    """The label of a history: a list of finite numbers (in CSV: with spaces between), one an item.

    `Items` takes an item that stands in a history twice once, where it stands first; its rating is then the last one.
    """

    type: Literal["ratings"] = "ratings"

    role: Role = "label"
    """Ratings are the label."""

    min: float | None = None
    """Smallest rating."""

    max: float | None = None
    """Largest rating."""

    label_type: ClassVar[str] = "ratings"
    one_class: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False
    counted: ClassVar[str] = "ratings"
    changes: ClassVar = {_AGAIN: "of an item that was rated several times the last rating is taken"}

    @property
    def bounded(self) -> bool:
        return (self.min, self.max) != (None, None)

    def check_label(self, name: str) -> None:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"columns.{name}: min {self.min:g} is not below max {self.max:g}")

    def check(self, name: str, contract: Any) -> None:
        seen = [contract.columns[of].type for of in contract.features]
        if self.role != "label" or seen != [ItemsColumn.type]:
            raise ValueError(f"columns.{name}: ratings are the label of one column of type {ItemsColumn.type}")

    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.float64())

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        """Read ratings alone: how many items there are is not known, and none is taken for another's."""
        lists, numbers = _parsed(batch, name)
        return self._batch(batch, name, lists, numbers, lengths_of(lists))

    def read_beside(self, batch: RawBatch, name: str, columns: Mapping[str, Column]) -> ColumnBatch:
        """Read ratings beside the items as the raw data has them, repeated ones too."""
        # The one feature, as `check` has it; other histories may stand beside it as metadata.
        items = next(of for of, column in columns.items() if column.role == "feature")
        ids = ids_of(batch, items)
        lists, numbers = _parsed(batch, name)
        lengths = lengths_of(lists)
        paired = pc.and_(lists.is_valid(), ids.is_valid()).to_numpy(zero_copy_only=False)
        more = np.where(paired, lengths - lengths_of(ids), np.nan)
        of_item, kept = _last(ids, more == 0, lengths)
        found = self._batch(batch, name, lists, numbers[of_item], kept, {_AGAIN: len(numbers) - len(of_item)})
        raw = self._batch(batch, name, lists, numbers, lengths)  # all that stands there is judged
        return ColumnBatch({**raw.facts, "more_than_items": more}, raw.as_found, found.take, found.changes)

    def _batch(
        self, batch: RawBatch, name: str, lists: pa.Array, numbers: np.ndarray, lengths: np.ndarray,
        changes: dict[str, int] | None = None,
    ) -> ColumnBatch:  # fmt: skip
        """Return rows of (m,) numbers end to end, of which row i has lengths[i]."""
        given, finite = lists.is_valid().to_numpy(zero_copy_only=False), np.isfinite(numbers)
        facts = {
            "given": np.where(given, 1.0, np.nan),
            "not_finite": count(~finite, lengths),
            "least": _extreme(np.minimum, numbers, finite, lengths),
            "largest": _extreme(np.maximum, numbers, finite, lengths),
        }
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = pa.ListArray.from_arrays(offsets, pa.array(numbers), mask=lists.is_null())
        array = batch.columns[name]
        return ColumnBatch(
            facts, lambda place: shorten(_shown(array[place].as_py())), lambda mask: values.filter(pa.array(mask)),
            {word: amount for word, amount in (changes or {}).items() if amount},
        )  # fmt: skip

    def rules(self, name: str) -> list[Rule]:
        return [
            between(f"{name}.length", f"{name}.more_than_items", 0, 0, "as many ratings as items"),
            between(f"{name}.finite", f"{name}.not_finite", 0, 0, "each a finite number", shows="raw"),
            *bounds(name, "least", self.min, None),
            *bounds(name, "largest", None, self.max),
        ]

    def cells(self, values: pa.Array) -> list[bytes]:
        """Return 0 for null; else 1 and the ratings, little-endian, -0.0 as 0.0."""
        return [b"\0" if row is None else b"\1" + (np.array(row, "<f8") + 0.0).tobytes() for row in values.to_pylist()]

    def histograms(self, name: str) -> Histograms | None:
        return interval(name, self.min, self.max)

    def guesses(self) -> None:
        return None


def _parsed(batch: RawBatch, name: str) -> tuple[pa.Array, np.ndarray]:
    """Return the raw lists, and all their numbers end to end, NaN where one is missing or none. Raises InputError."""
    array = batch.columns[name]
    if batch.is_text and is_string(array.type):
        array = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(array))
    kind = array.type
    if pa.types.is_null(kind):
        array = array.cast(pa.list_(pa.float64()))
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise wrong_type(batch, name, kind, "a list of numbers (list<double>)")
    flat = array.flatten()
    of = flat.type
    if is_string(of) and batch.is_text:
        # Many ratings, few different ones.
        coded = flat.dictionary_encode("encode")
        known = np.array([_number(word) for word in coded.dictionary.to_pylist()], np.float64)
        return array, known[coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)]
    if not (pa.types.is_floating(of) or pa.types.is_integer(of) or pa.types.is_decimal(of) or pa.types.is_null(of)):
        raise wrong_type(batch, name, kind, "a list of numbers (list<double>)")
    numbers: np.ndarray = flat.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return array, numbers


def _number(word: str | None) -> float:
    try:
        return np.nan if word is None else parse_float(word)
    except ValueError:
        return np.nan


def _last(ids: pa.Array, even: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the last rating of each item stands, in the order in which the items first come, and how many items
    each row has; rows that are not `even` keep what they have.

    Args:
        ids: n lists of items.
        even: (n,) whether a row has as many ratings as items.
        lengths: (n,) how many ratings it has.
    """
    rows, places = np.repeat(np.arange(len(ids)), lengths), np.arange(lengths.sum())
    if not even.any() or not len(places):
        return places, lengths
    flat = ids.filter(pa.array(even)).flatten()
    codes = flat.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False).astype(np.int64)
    own = np.flatnonzero(even[rows])
    keys = rows[own] * (len(flat) + 1) + codes
    _, first = np.unique(keys, return_index=True)
    _, last = np.unique(keys[::-1], return_index=True)
    kept = np.sort(np.concatenate([own[first], np.flatnonzero(~even[rows])]))
    of_item = places.copy()
    of_item[own[first]] = own[len(own) - 1 - last]
    return of_item[kept], np.bincount(rows[kept], minlength=len(ids))


def _extreme(which: np.ufunc, numbers: np.ndarray, finite: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return (n,) the least or the largest finite number of each row, NaN where it has none."""
    found = np.full(len(lengths), np.nan)
    rows = np.repeat(np.arange(len(lengths)), lengths)[finite]
    if len(rows):
        starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        found[rows[starts]] = which.reduceat(numbers[finite], starts)
    return found


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class RatingLabel(StoredLabel):
    """A list of ratings, one an item."""

    type: ClassVar[str] = "ratings"

    def values(self, column: pa.ChunkedArray) -> list[np.ndarray]:
        """Return n arrays, (number of items,), float64. Raises ValueError if one is missing or not finite."""
        found = []
        for row in column.to_pylist():
            if row is None or not np.isfinite(np.array(row, np.float64)).all():
                raise ValueError(f"column '{self.name}' lacks a rating")
            found.append(np.array(row, np.float64))
        return found

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Float", "isArray": True, "arrayShape": "-1"}

    def invented(self, features: pa.Array) -> pa.Array:
        draw = np.random.default_rng(0)
        return pa.array([draw.integers(1, 6, len(row)).astype(float) for row in features.to_pylist()])
