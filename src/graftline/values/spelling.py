"""Raw values under other words than the contract's: white space taken off, words mapped, both counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

SHOWN = 40


class Spelled(NamedTuple):
    """A raw column under the contract's words."""

    values: pa.Array
    is_text: bool
    """Whether they are text still to be parsed."""
    changes: dict[str, int]
    """How many values each change was made to, by its word."""


def trimmed(values: pa.Array, *, is_text: bool) -> Spelled:
    """Return strings without white space at their ends; of text that leaves nothing, a missing value."""
    found = pc.utf8_trim_whitespace(values)
    count = pc.sum(pc.not_equal(found, values)).as_py() or 0
    if is_text:
        found = pc.if_else(pc.equal(found, ""), pa.scalar(None, found.type), found)
    return Spelled(found, is_text, {"trimmed": count} if count else {})


def mapped(values: pa.Array, words: Mapping[Any, Any]) -> Spelled:
    """Return values as text, those that `words` has replaced by what it says; None there is a missing value.

    Numbers and booleans are looked up as JSON spells them, whole ones without a fraction.
    """
    spelled = as_words(values)
    targets = [None if target is None else str(target) for target in words.values()]
    place = pc.index_in(spelled, pa.array([word(key) for key in words], spelled.type))
    found = pc.if_else(place.is_valid(), pc.take(pa.array(targets, spelled.type), place), spelled)
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(place.drop_null()).to_pylist()}
    keys = list(words.items())
    return Spelled(found, True, {_change(*keys[number]): counts[number] for number in sorted(counts)})


def as_words(values: pa.Array) -> pa.Array:
    """Return values as strings."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return values.cast(pa.string())
    return pa.array([None if value is None else word(value) for value in values.to_pylist()], pa.string())


def word(value: Any) -> str:
    """Return the text of a value: `true`, `3` for 3.0, `0.5`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _change(key: Any, target: Any) -> str:
    shown = repr(key)
    shown = shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "..."
    return f"mapped: {shown} to {'missing' if target is None else repr(target)}"
