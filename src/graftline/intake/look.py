"""Some rows of raw data, whatever its size: all of them where they are few, else slices from all over its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.files import Part, raw_files
from graftline.raw.reader import Asked, Source
from graftline.values.guesses import Sampled

BYTES = 32 << 20
"""Read at most, about: what is smaller is looked at whole."""
KEPT_BYTES = 256 << 20
"""Kept in memory at most, about: a small Parquet file can hold much."""
_FILES = 64
_SLICES = 16
"""Of one file that is too large to be looked at whole."""
_MISFITS = 0.2
"""Share of rows with a wrong number of cells from which on a slice began inside a quoted cell."""


@dataclass(frozen=True)
class Look:
    """What was seen of raw data."""

    path: Path
    parts: tuple[Part, ...]
    size: int
    """Bytes of all files."""
    rows: int
    """Of all files: counted where `whole`, else about."""
    whole: bool
    """Whether every row was looked at."""
    batches: tuple[RawBatch, ...]
    """The rows that were looked at, numbered from 0."""

    @property
    def looked(self) -> int:
        return sum(batch.rows for batch in self.batches)

    @cached_property
    def columns(self) -> dict[str, Sampled]:
        """Each column in the rows that were looked at, in the files' order."""
        text = self.batches[0].is_text
        return {name: Sampled(name, self._column(name), text) for name in self.batches[0].columns}

    def _column(self, name: str) -> pa.Array:
        tables = [pa.table({name: batch.columns[name]}) for batch in self.batches]
        try:
            return pa.concat_tables(tables, promote_options="permissive")[name].combine_chunks()
        except pa.ArrowException as error:
            raise InputError(
                f"{self.path}: column '{name}'",
                f"values of several types ({error})",
                expected="values of one type",
                fix="correct the files",
            ) from None

    @property
    def seen(self) -> str:
        """How much was looked at, for people."""
        return f"all {self.rows:,} rows" if self.whole else f"{self.looked:,} of about {self.rows:,} rows"


def look(path: Path, source: Source | None = None) -> Look:
    """Return what is seen of the file or folder `path`, in bounded time and memory.

    Raises:
        InputError: it cannot be read, or its files have different columns.
    """
    source = source or Source()
    parts = raw_files(path, source)
    size = sum(_size(part.path) for part in parts)
    asked = Asked([field.name for field in parts[0].reader.schema(parts[0].path, source)], source)
    batches: list[RawBatch] = []
    cut, read = size > BYTES, 0
    with TemporaryDirectory(prefix="graftline-look-") as folder:
        pieces = _some(parts, asked, Path(folder)) if cut else ((part.path, _rows(part, asked)) for part in parts)
        for file, found in pieces:
            read += _size(file)
            for batch in found:
                if sum(_bytes(before) for before in batches) > KEPT_BYTES:
                    cut = True
                    break
                batches.append(replace(batch, first_row=sum(before.rows for before in batches)))
    if not batches:
        raise InputError(path, "no rows", expected="at least one")
    looked = sum(batch.rows for batch in batches)
    rows = looked if not cut else _count(parts) or round(looked * size / max(1, read))
    return Look(path, tuple(parts), size, rows, not cut, tuple(batches))


def _rows(part: Part, asked: Asked) -> Iterator[RawBatch]:
    return part.reader.batches(part.path, asked, 0)


def _bytes(batch: RawBatch) -> int:
    return sum(array.nbytes for array in batch.columns.values())


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())


def _count(parts: Sequence[Part]) -> int:
    """Return the rows of Parquet files, about: their footers say it; 0 for other files."""
    some = parts[:: max(1, len(parts) // _FILES)]
    if not all(part.path.suffix == ".parquet" for part in some):
        return 0
    return round(sum(pq.read_metadata(part.path).num_rows for part in some) * len(parts) / len(some))


# Excerpts of large files


def _some(parts: Sequence[Part], asked: Asked, folder: Path) -> Iterator[tuple[Path, Iterable[RawBatch]]]:
    """Yield rows from all over large files, and the files they are in: of each about BYTES / _FILES bytes or more."""
    places = np.unique(np.linspace(0, len(parts) - 1, min(len(parts), _FILES)).astype(int))
    share = max(BYTES // len(places), 64 << 10)
    for part in (parts[place] for place in places):
        size = _size(part.path)
        if size <= share:
            yield part.path, _rows(part, asked)
        elif part.path.suffix == ".parquet":
            excerpt = replace(part, path=_row_groups(part.path, share, folder))
            yield excerpt.path, _rows(excerpt, asked)
        else:
            for number in range(_SLICES):
                yield from _slice(part, asked, folder / part.path.name, number * (size // _SLICES), share // _SLICES)


def _slice(part: Part, asked: Asked, out: Path, start: int, size: int) -> Iterator[tuple[Path, Iterable[RawBatch]]]:
    """Yield the whole rows among the `size` bytes from `start` on, if it can be told where one begins.

    Cells in quotes may hold line ends: a line end outside of quotes has an even number of them before it, counted from
    outside, an odd one counted from inside. The row after the first line end is one of a right number of cells if the
    count began on the right side.
    """
    with part.path.open("rb") as file:
        head = file.readline(size)
        file.seek(max(start, len(head)))
        text = file.read(size)
    for inside in (False, True) if start else (False,):
        ends = [end for end, quotes in _line_ends(text) if quotes % 2 == inside]
        begin = ends[0] if start and ends else 0
        if not ends or ends[-1] <= begin:
            continue
        out.write_bytes(head + text[begin : ends[-1]])
        try:
            found = list(_rows(replace(part, path=out), asked))
        except InputError:
            if not start:
                raise
            continue
        if not start or np.concatenate([batch.cells != len(asked.columns) for batch in found]).mean() <= _MISFITS:
            yield out, found
            return


def _line_ends(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each line ends, and how many quotes stand before."""
    end = quotes = 0
    while (following := text.find(b"\n", end) + 1) > 0:
        quotes += text.count(b'"', end, following)
        end = following
        yield end, quotes


def _row_groups(path: Path, share: int, folder: Path) -> Path:
    """Return a file with the first rows of evenly spaced row groups."""
    out = folder / path.name
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        groups = np.unique(np.linspace(0, file.num_row_groups - 1, min(_SLICES, file.num_row_groups)).astype(int))
        a_row = max(1, _size(path) // max(1, file.metadata.num_rows))
        rows = max(1, share // len(groups) // a_row)
        with pq.ParquetWriter(out, file.schema_arrow) as writer:
            for group in groups:
                batch = next(file.iter_batches(batch_size=rows, row_groups=[int(group)]), None)
                if batch is not None:
                    writer.write_batch(batch)
    return out
