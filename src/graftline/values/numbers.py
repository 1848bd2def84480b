"""Several numbers a row: a label of more than one number, each with a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from graftline.raw.batches import RawBatch
from graftline.values.column import Label, Role
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.histograms import Histograms
from graftline.values.number import NumberLabel, bounds, interval, parse_float
from graftline.values.rules import Rule, between


class Numbers(Label):
    """A list of finite numbers (in CSV: with spaces between), the same number of them in each row."""

    type: Literal["numbers"] = "numbers"

    role: Role = "label"
    """Several numbers are the label."""

    names: tuple[str, ...] = Field(min_length=1)
    """What the numbers are, in their order in the list; each name once."""

    min: float | None = None
    """Smallest value of any of them."""

    max: float | None = None
    """Largest value of any of them."""

    label_type: ClassVar[str] = "numbers"
    one_class: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False
    counted: ClassVar[str] = "numbers"

    @property
    def bounded(self) -> bool:
        return (self.min, self.max) != (None, None)

    @property
    def label_classes(self) -> tuple[str, ...]:
        """The names: they stand where other labels have their classes."""
        return self.names

    def check_label(self, name: str) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"columns.{name}.names: a name stands twice")

    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.float64(), len(self.names))

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = batch.columns[name]
        if not batch.is_text and not _is_numbers(array.type):
            raise wrong_type(batch, name, array.type, "numbers (list<double>)")
        rows = [_parse(value) for value in array.to_pylist()]
        given = np.array([row is not None for row in rows])
        table = np.full((len(rows), len(self.names)), np.nan)
        lengths = np.full(len(rows), np.nan)
        for place, row in enumerate(rows):
            if row is not None:
                lengths[place] = len(row)
                if len(row) == len(self.names):
                    table[place] = row
        fits = lengths == len(self.names)
        finite = np.isfinite(table).all(axis=1)
        judged = np.where(finite[:, None], table, np.nan)
        facts = {
            "given": np.where(given, 1.0, np.nan),
            "length": lengths,
            "not_finite": (fits & ~finite).astype(np.int64),
            "least": judged.min(axis=1), "largest": judged.max(axis=1),
        }  # fmt: skip

        def take(mask: np.ndarray) -> pa.Array:
            flat = pa.array(table[mask].ravel())
            return pa.FixedSizeListArray.from_arrays(flat, len(self.names), mask=pa.array(~given[mask]))

        return ColumnBatch(facts, lambda place: shorten(str(array[place].as_py())), take)

    def rules(self, name: str) -> list[Rule]:
        count = len(self.names)
        return [
            between(f"{name}.length", f"{name}.length", count, count, f"{count} numbers", shows="raw"),
            between(f"{name}.finite", f"{name}.not_finite", 0, 0, "each a finite number", shows="raw"),
            *bounds(name, "least", self.min, None),
            *bounds(name, "largest", None, self.max),
        ]

    def cells(self, values: pa.Array) -> list[bytes]:
        """Return 0 for null; else 1 and the numbers, little-endian, -0.0 as 0.0."""
        return [b"\0" if row is None else b"\1" + (np.array(row, "<f8") + 0.0).tobytes() for row in values.to_pylist()]

    def members(self, values: pa.Array, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.names)
        return np.tile(np.arange(count), int((ids >= 0).sum())), np.where(ids >= 0, count, 0)

    def histograms(self, name: str) -> Histograms | None:
        return interval(name, self.min, self.max)


@dataclass(frozen=True)
class NumbersLabel(NumberLabel):
    """Several numbers a row; `classes` are their names."""

    type: ClassVar[str] = "numbers"

    def values(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return (n, numbers) float64."""
        flat: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return self.checked(flat.reshape(len(column), len(self.classes)))

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Float", "isArray": True, "arrayShape": str(len(self.classes))}

    def invented(self, features: pa.Array) -> pa.Array:
        drawn = np.random.default_rng(0).standard_normal((len(features), len(self.classes)))
        return pa.FixedSizeListArray.from_arrays(pa.array(drawn.ravel()), len(self.classes))


def _is_numbers(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in lists):
        return bool(pa.types.is_null(kind))
    of = kind.value_type
    return bool(pa.types.is_floating(of) or pa.types.is_integer(of) or pa.types.is_null(of))


def _parse(value: Any) -> list[float] | None:
    """Return a row's numbers, NaN where one is missing or none."""
    if value is None:
        return None
    found = []
    for part in value.split() if isinstance(value, str) else value:
        try:
            found.append(np.nan if part is None else parse_float(part))
        except (ValueError, OverflowError):
            found.append(np.nan)
    return found
