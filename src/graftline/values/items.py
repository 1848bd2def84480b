"""Histories, one a row: what a user bought, read, installed, as a list of the items' ids.

Beside them a dataset may hold a catalogue of the items: `<column>.catalogue.parquet`, with `item`, `name` for people
and `words`, which tell of items that no history holds yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup
from pydantic import Field

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked, Source
from graftline.values.column import Questions, StoredFeature
from graftline.values.facts import ColumnBatch, wrong_type
from graftline.values.identity import TRAIN
from graftline.values.rules import Rule, between
from graftline.values.samples import UNSORTED, Samples, begin
from graftline.values.strings import checked, lengths_of, lists, read_texts, words_of
from graftline.values.text import Written
from graftline.values.words import list_batch

ITEM, NAME, WORDS = "item", "name", "words"
"""The columns of a catalogue; the first must be there."""
_REPEATED = "repeated"


class Items(Written):
    """Histories, one a row: a list of items' ids (in CSV: with spaces between), each once."""

    type: Literal["items"] = "items"

    min_length: int = Field(default=2, ge=2)
    """Fewest items of a history: one to see, one to tell."""

    max_length: int | None = Field(default=None, ge=2)
    """Most items of a history."""

    ordered: bool = False
    """Whether the items' order counts, as that of purchases does; else a history is a set."""

    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of a history that is held out where models are measured, at least one item: of ordered ones the last, of
    sets those that a hash of the history and the item picks."""

    cold: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of all items, picked by a hash of their ids, that train, val and the pool never show: on them it is
    measured how items are recommended that no history holds yet."""

    unit: ClassVar[str] = "items"
    plural: ClassVar[str] = "histories"
    changes: ClassVar[dict[str, str]] = {_REPEATED: "an item that a history holds already is taken once"}

    def check(self, name: str, contract: Any) -> None:
        if len(contract.features) > 1:
            raise ValueError(f"columns.{name}: a model sees histories alone; give other columns the role metadata")

    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.string())

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array, repeated = _once(ids_of(batch, name))
        return list_batch(array, {_REPEATED: repeated} if repeated else {})

    def rules(self, name: str) -> list[Rule]:
        return [
            *self.length_rules(name),
            between(f"{name}.empty_items", f"{name}.empty", 0, 0, "no item is empty or missing"),
            between(f"{name}.characters", f"{name}.controls", 0, 0, "no control character", shows="raw"),
        ]

    def same(self, values: pa.Array, cells: list[bytes]) -> list[bytes]:
        """Sets in one order; ordered histories as they are."""
        return cells if self.ordered else self.cells(pa.array(map(sorted, values.to_pylist()), values.type))

    def loose(self, values: pa.Array) -> None:  # type: ignore[override]  # ids are seen whole
        return None

    def near_text(self, minimum: float) -> str:
        return f"histories that share {minimum:g} of their runs of 5 characters or more"

    def samples(self, name: str, label: str | None, classes: tuple[Any, ...]) -> Samples:
        return HistorySamples(name, label)

    def stored(self, name: str) -> ItemsColumn:
        return ItemsColumn(name, self.ordered, self.held_out, self.cold)

    def put_beside(self, name: str, raw: Path, source: Source, dataset: Path) -> list[str]:
        """Write the catalogue into the dataset."""
        if source.catalogue is None:
            return []
        table = read_catalogue(raw / source.catalogue, source)
        pq.write_table(table, dataset / catalogue_file(name), compression="zstd")
        told = [column for column in (NAME, WORDS) if column in table.column_names]
        return [f"{source.catalogue}: {table.num_rows:,} items" + (f" with {' and '.join(told)}" if told else "")]


def ids_of(batch: RawBatch, name: str) -> pa.Array:
    """Return lists of ids as strings; whole numbers are ids too. Raises InputError for another type."""
    array = batch.columns[name]
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        of = kind.value_type
        if pa.types.is_integer(of) or pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_null(of):
            return array.cast(pa.list_(pa.string()))
        raise wrong_type(batch, name, kind, "a list of items' ids (list<string> or of whole numbers)")
    return lists(batch, name)


def _once(array: pa.Array) -> tuple[pa.Array, int]:
    """Return lists without what stands in them already, and how much that was."""
    lengths = lengths_of(array)
    rows = np.repeat(np.arange(len(array)), lengths)
    flat = array.flatten()
    codes = flat.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(rows.astype(np.int64) * (len(flat) + 1) + codes, return_index=True)
    if len(first) == len(flat):
        return array, 0
    first.sort()
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows[first], minlength=len(array)))])
    kept = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat.take(pa.array(first)), mask=array.is_null())
    return kept, len(flat) - len(first)


@dataclass
class HistorySamples(Samples):
    """The first histories of train; of rated ones each item with its rating."""

    name: str
    label: str | None
    kept: list[list[str]] = field(default_factory=list)

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        for place in np.flatnonzero(splits == TRAIN)[: UNSORTED - len(self.kept)]:
            items = columns[self.name][int(place)].as_py()
            if self.label is not None and pa.types.is_list(columns[self.label].type):
                rated = zip(items, columns[self.label][int(place)].as_py(), strict=True)
                items = [f"{item} ({rating:g})" for item, rating in rated]
            self.kept.append(items)

    def html(self) -> Markup:
        line = Markup('<p class="tagged" dir="auto">{}</p>')
        return Markup("\n").join(line.format(begin(", ".join(items))) for items in self.kept)


@dataclass(frozen=True)
class ItemsColumn(StoredFeature):
    """A column of lists of items' ids, one history a row."""

    ordered: bool = False
    held_out: float = 0.2
    cold: float = 0.0

    type: ClassVar[str] = "items"
    plural: ClassVar[str] = "histories"

    def as_dict(self) -> dict[str, Any]:
        more = {"ordered": self.ordered, "held_out": self.held_out, "cold": self.cold}
        return {**super().as_dict(), **more}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ItemsColumn:
        return cls(values["name"], bool(values["ordered"]), float(values["held_out"]), float(values["cold"]))

    def values(self, column: pa.ChunkedArray) -> list[list[str]]:
        """Return n histories."""
        histories: list[list[str]] = column.to_pylist()
        return histories

    def is_cold(self, item: str) -> bool:
        """Return whether train, val and the pool never show the item."""
        return _share(f"cold/{item}") < self.cold

    def divide(self, history: list[str]) -> tuple[list[str], list[str]]:
        """Return what is given of a history where a model is measured, and what is held out; neither is empty."""
        out = min(len(history) - 1, max(1, round(self.held_out * len(history))))
        if self.ordered:
            return history[:-out], history[-out:]
        whole = "/".join(sorted(history))
        ranked = sorted(history, key=lambda item: _share(f"{whole}//{item}"))
        return sorted(ranked[out:]), sorted(ranked[:out])

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Text", "isArray": True, "arrayShape": "-1"}

    def question(self, where: str, value: Any) -> list[str]:
        return history_of(where, value, self.name)

    def questions(self, paths: list[Path], texts: list[str]) -> Questions:
        """Histories as text stand with spaces between the items."""
        return Questions(read_texts(paths, texts, self.name, history_of))


def history_of(where: str, value: Any, column: str) -> list[str]:
    """Return what a file or a person gives as a history, as `Items.read` takes it: whole numbers are ids too, and an
    item counts once. Raises InputError for anything else."""
    if isinstance(value, list):
        value = [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
    return list(dict.fromkeys(words_of(checked(where, value, column))))


def _share(text: str) -> float:
    """Return a number from 0 to 1 that the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64


# The catalogue


def catalogue_file(column: str) -> str:
    """Return the name of the catalogue of a column's items in a dataset."""
    return f"{column}.catalogue.parquet"


def read_catalogue(path: Path, source: Source) -> pa.Table:
    """Return a catalogue: `item`, and if it tells them `name` and `words`, a list (as text: with spaces between).

    Raises:
        InputError: it cannot be read, lacks `item`, or names an item twice or not at all.
    """
    if not path.is_file():
        raise InputError(path, "no such file", expected=f"the catalogue, a table with '{ITEM}'", fix="put it there")
    of_file = Source(encoding=source.encoding, quote=source.quote, escape=source.escape)
    parts = raw_files(path, of_file)
    found = parts[0].reader.schema(path, of_file).names
    wanted = [ITEM, *(name for name in (NAME, WORDS) if name in found)]
    batches = list(read_batches(parts, Asked(wanted, of_file, "drop")))
    readers = {ITEM: _strings, NAME: _strings, WORDS: lists}
    columns = {name: pa.chunked_array([readers[name](batch, name) for batch in batches]) for name in wanted}
    items = columns[ITEM]
    if items.null_count or len(items.unique()) < len(items):
        twice = next((one["values"] for one in pc.value_counts(items).to_pylist() if one["counts"] > 1), None)
        raise InputError(
            path, "a row without an item" if twice is None else f"the item {twice[:80]!r} stands twice",
            expected="a row an item", fix="correct the catalogue",
        )  # fmt: skip
    return pa.table(columns)


def _strings(batch: RawBatch, name: str) -> pa.Array:
    array = batch.columns[name]
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_integer(array.type):
        return array.cast(pa.string())
    raise wrong_type(batch, name, array.type, "text, or whole numbers")


@dataclass(frozen=True)
class Catalogue:
    """What is known of items beside histories."""

    names: dict[str, str]
    """For people; empty without."""
    words: dict[str, Sequence[str]]
    """Of every item in it; empty lists without."""


def open_catalogue(dataset: Path, column: str) -> Catalogue:
    """Return the dataset's catalogue; an empty one where it has none. Raises InputError."""
    path = dataset / catalogue_file(column)
    if not path.is_file():
        return Catalogue({}, {})
    try:
        rows = pq.read_table(path).to_pylist()
        words: dict[str, Sequence[str]] = {
            row[ITEM]: tuple(dict.fromkeys(filter(None, row.get(WORDS) or ()))) for row in rows
        }
        return Catalogue({row[ITEM]: row[NAME] for row in rows if row.get(NAME)}, words)
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise InputError(path, f"no catalogue ({type(error).__name__})", fix="run validate again") from None
