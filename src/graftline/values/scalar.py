"""Columns with one plain value a cell: how numbers and short texts are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from graftline.tables import RawBatch
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.rules import Rule, between

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Scalar(Protocol):
    """A kind of column with one plain value a cell."""

    @property
    def type(self) -> str: ...

    def output_type(self) -> pa.DataType: ...

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        """Return the facts of values in the output's type."""


def read_scalar(batch: RawBatch, name: str, column: Scalar, parse: Callable[[Any], Any]) -> ColumnBatch:
    """Return the column `name`; `parse` reads a value that Arrow does not, and raises ValueError if it is none."""
    import numpy as np

    array = batch.columns[name]
    given = array.is_valid().to_numpy(zero_copy_only=False)
    typed, unreadable = _typed(batch, name, array, column, parse)
    facts: dict[str, Any] = {
        "given": np.where(given, 1.0, np.nan),
        "unreadable": unreadable.astype(np.int64),
        **column.facts(typed),
    }

    def as_found(position: int) -> str:
        return shorten(str(array[position].as_py()))

    def take(mask: np.ndarray) -> pa.Array:
        import pyarrow as pa

        return typed.filter(pa.array(mask))

    return ColumnBatch(facts, as_found, take)


def _typed(
    batch: RawBatch, name: str, array: pa.Array, column: Scalar, parse: Callable[[Any], Any]
) -> tuple[pa.Array, np.ndarray]:
    """Return the column in the output's type, null where it cannot be read so, and where that is.

    Raises:
        InputError: the Arrow type cannot hold such values at all.
    """
    import numpy as np
    import pyarrow as pa

    kind, wanted = array.type, column.output_type()
    if pa.types.is_null(kind):
        return array.cast(wanted), np.zeros(len(array), bool)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (text if pa.types.is_string(wanted) or batch.is_text else number):
        raise wrong_type(batch, name, kind, f"{column.type} ({wanted})")
    if pa.types.is_floating(wanted) and pa.types.is_floating(kind):
        return array.cast(wanted), np.zeros(len(array), bool)
    try:
        if not (
            batch.is_text and pa.types.is_floating(wanted)
        ):  # Arrow takes other spellings of floats than Python
            return array.cast(wanted), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        pass
    unreadable = np.zeros(len(array), bool)
    values: list[Any] = []
    for position, value in enumerate(array.to_pylist()):
        try:
            values.append(None if value is None else parse(value))
        except (ValueError, OverflowError):
            unreadable[position] = True
            values.append(None)
    return pa.array(values, wanted), unreadable


def readable(name: str, kind: str) -> Rule:
    return between(f"{name}.type", f"{name}.unreadable", 0, 0, f"reads as {kind}", shows="raw")


def one_of(name: str, allowed: Sequence[int | str] | None) -> list[Rule]:
    """Return the rule that a value is one of the allowed ones; none where all are."""
    if allowed is None:
        return []
    listed = ", ".join(map(str, allowed[:20])) + (", ..." if len(allowed) > 20 else "")
    arguments = {"value_set": list(allowed)}
    return [
        Rule(f"{name}.classes", f"{name}.value", "ExpectColumnValuesToBeInSet", arguments, f"one of {listed}")
    ]
