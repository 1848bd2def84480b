"""Columns of text, of words and of tags: facts for the rules, and the good values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from graftline.tables import RawBatch
from graftline.values.contract import Tags, Tokens
from graftline.values.facts import ColumnBatch, shorten, wrong_type

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CONTROLS = "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x{9f}]"
"""Unicode's control characters (category Cc) but tab, line feed and carriage return, as RE2 writes them."""
_SHOWN_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def read_text(batch: RawBatch, name: str) -> ColumnBatch:
    """Return a column of documents. Raises InputError if its type is no text."""
    import numpy as np
    import pyarrow.compute as pc

    array = _strings(batch, name)
    # White space at the ends is kept, but does not make a document longer.
    facts = {
        "given": np.where(_valid(array), 1.0, np.nan),
        "length": _numbers(pc.utf8_length(pc.utf8_trim_whitespace(array))),
        "controls": _numbers(pc.count_substring_regex(array, CONTROLS)),
    }

    def as_found(position: int) -> str:
        return show_text(str(array[position].as_py()))

    def take(mask: np.ndarray) -> pa.Array:
        import pyarrow as pa

        return array.filter(pa.array(mask))

    return ColumnBatch(facts, as_found, take)


def read_words(batch: RawBatch, name: str, column: Tokens | Tags) -> ColumnBatch:
    """Return a column of lists of words or tags. Raises InputError if its type is no list of text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    array = _lists(batch, name)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = array.flatten()  # without the places of missing rows
    given = _valid(array)
    facts = {
        "given": np.where(given, 1.0, np.nan),
        "length": np.where(given, lengths, np.nan),
    }
    if isinstance(column, Tags):
        known = pc.is_in(flat, pa.array(column.classes, pa.string()))
        facts["unknown"] = _count(~known.to_numpy(zero_copy_only=False), lengths)
    else:
        empty = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(flat)), 0), True)
        bad = pc.fill_null(pc.match_substring_regex(flat, "[\\x00-\\x1f\\x7f-\\x{9f}]"), False)
        facts["empty"] = _count(empty.to_numpy(zero_copy_only=False), lengths)
        facts["controls"] = _count(bad.to_numpy(zero_copy_only=False), lengths)

    def as_found(position: int) -> str:
        return show_text(" ".join(str(word) for word in array[position].as_py() or ()))

    def take(mask: np.ndarray) -> pa.Array:
        return array.filter(pa.array(mask))

    return ColumnBatch(facts, as_found, take)


def show_text(text: str) -> str:
    """Return the beginning of a text with its control characters as escapes."""
    return _SHOWN_CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", shorten(text))


def _strings(batch: RawBatch, name: str) -> pa.Array:
    import pyarrow as pa

    array = batch.columns[name]
    kind = array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise wrong_type(batch, name, kind, "text (string)")
    return array.cast(pa.string())


def _lists(batch: RawBatch, name: str) -> pa.Array:
    """Return the column as lists of strings; a cell of CSV is split at white space."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = batch.columns[name]
    kind = array.type
    if batch.is_text:
        return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(array))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner):
            return array.cast(pa.list_(pa.string()))
    if pa.types.is_null(kind):
        return array.cast(pa.list_(pa.string()))
    raise wrong_type(batch, name, kind, "a list of words (list<string>)")


def _valid(array: pa.Array) -> np.ndarray:
    valid: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _numbers(array: pa.Array) -> np.ndarray:
    """Return (n,) float64, NaN where null."""
    import numpy as np

    numbers: np.ndarray = array.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _count(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return (n,) int64: how many are true in each run of `mask`; run i is lengths[i] long."""
    import numpy as np

    ends = np.cumsum(lengths)
    total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    counts: np.ndarray = total[ends] - total[ends - lengths]
    return counts
