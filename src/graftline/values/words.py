"""Sentences, one a row: a list of words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from graftline.dataset import TokensColumn
from graftline.tables import RawBatch
from graftline.values.column import Column, Nearness
from graftline.values.facts import ColumnBatch, wrong_type
from graftline.values.rules import Rule, between
from graftline.values.text import length_rules, show_text, valid_mask

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Tokens(Column):
    """Sentences, one a row: a list of words (in CSV: words with spaces between). None holds a control character."""

    type: Literal["tokens"] = "tokens"

    role: Literal["feature", "label", "split", "metadata"] = "feature"
    """The words are what the model sees."""

    min_length: int = Field(default=1, ge=1)
    """Smallest length in words."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in words."""

    nearness: ClassVar[Nearness] = "min_jaccard"

    def as_feature(self, name: str) -> TokensColumn:
        return TokensColumn(name)

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.string())

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        return read_lists(batch, name, _word_facts)

    def rules(self, name: str) -> list[Rule]:
        return [
            *length_rules(name, self.min_length, self.max_length, "words"),
            between(f"{name}.empty_words", f"{name}.empty", 0, 0, "no word is empty or missing"),
            between(f"{name}.characters", f"{name}.controls", 0, 0, "no control character", shows="raw"),
        ]


def _word_facts(flat: pa.Array, lengths: np.ndarray) -> dict[str, np.ndarray]:
    import pyarrow.compute as pc

    empty = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(flat)), 0), True)
    bad = pc.fill_null(pc.match_substring_regex(flat, "[\\x00-\\x1f\\x7f-\\x{9f}]"), False)
    return {
        "empty": count_runs(empty.to_numpy(zero_copy_only=False), lengths),
        "controls": count_runs(bad.to_numpy(zero_copy_only=False), lengths),
    }


def read_lists(
    batch: RawBatch, name: str, facts: Callable[[pa.Array, np.ndarray], dict[str, np.ndarray]]
) -> ColumnBatch:
    """Return a column of lists; `facts` gets all their words end to end, and the length of each list.

    Raises:
        InputError: its type is no list of text.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    array = _lists(batch, name)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = array.flatten()  # without the places of missing rows
    given = valid_mask(array)
    found = {
        "given": np.where(given, 1.0, np.nan),
        "length": np.where(given, lengths, np.nan),
        **facts(flat, lengths),
    }

    def as_found(position: int) -> str:
        return show_text(" ".join(str(word) for word in array[position].as_py() or ()))

    def take(mask: np.ndarray) -> pa.Array:
        return array.filter(pa.array(mask))

    return ColumnBatch(found, as_found, take)


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


def count_runs(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return (n,) int64: how many are true in each run of `mask`; run i is lengths[i] long."""
    import numpy as np

    ends = np.cumsum(lengths)
    total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    counts: np.ndarray = total[ends] - total[ends - lengths]
    return counts
