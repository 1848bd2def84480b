"""One number or one word a row: what the kinds of such columns share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from graftline.raw.batches import RawBatch
from graftline.values.column import Column
from graftline.values.facts import ColumnBatch, shorten, taken, wrong_type
from graftline.values.rules import Rule, between
from graftline.values.spelling import Spelled


class Scalar(Column):
    """A column of single values, read from their own type or parsed from CSV's text."""

    arrow: ClassVar[pa.DataType]

    def arrow_type(self) -> pa.DataType:
        return self.arrow

    @abstractmethod
    def parse(self, value: Any) -> Any:
        """Return a value of another type. Raises ValueError or OverflowError for what is none of this column's."""

    @abstractmethod
    def facts(self, typed: pa.Array) -> dict[str, Any]:
        """Return the facts of values in the output's type."""

    def fits(self, kind: pa.DataType, *, is_text: bool) -> bool:
        """Return whether a raw column of this type may hold such values; `is_text` if they are still to be parsed."""
        return is_string(kind) if is_text else is_number(kind)

    def casts(self, kind: pa.DataType, *, is_text: bool) -> bool:
        """Return whether Arrow reads such a column as we do, if it reads it at all."""
        return True

    def spelled(self, values: pa.Array, *, is_text: bool) -> Spelled:
        """Return a raw column under the contract's words."""
        return Spelled(values, is_text, {})

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = batch.columns[name]
        values, is_text, changes = self.spelled(array, is_text=batch.is_text)
        given = values.is_valid().to_numpy(zero_copy_only=False)
        typed, unreadable = self._typed(replace(batch, is_text=is_text), name, values)
        facts: dict[str, Any] = {
            "given": np.where(given, 1.0, np.nan),
            "unreadable": unreadable.astype(np.int64),
            **self.facts(typed),
        }
        return ColumnBatch(facts, lambda place: shorten(str(array[place].as_py())), taken(typed), changes)

    def rules(self, name: str) -> list[Rule]:
        return [between(f"{name}.type", f"{name}.unreadable", 0, 0, f"reads as {self.type}", shows="raw")]

    def _typed(self, batch: RawBatch, name: str, array: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """Return the column in the output's type, null where it cannot be read so, and where that is."""
        kind, none = array.type, np.zeros(len(array), bool)
        if pa.types.is_null(kind):
            return array.cast(self.arrow), none
        if not self.fits(kind, is_text=batch.is_text):
            raise wrong_type(batch, name, kind, f"{self.type} ({self.arrow})")
        if self.casts(kind, is_text=batch.is_text):
            try:
                return array.cast(self.arrow), none
            except pa.ArrowInvalid:
                pass
        unreadable = np.zeros(len(array), bool)
        values: list[Any] = []
        for position, value in enumerate(array.to_pylist()):
            try:
                values.append(None if value is None else self.parse(value))
            except (ValueError, OverflowError):
                unreadable[position] = True
                values.append(None)
        return pa.array(values, self.arrow), unreadable


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
