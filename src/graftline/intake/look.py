"""Some rows of raw data, whatever its size: all of them where they are few, else slices from all over its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    sizes = [_size(part.path) for part in parts]
    columns = [field.name for field in parts[0].reader.schema(parts[0].path, source)]
    asked = Asked(columns, source)
    chosen = [parts[i] for i in np.unique(np.linspace(0, len(parts) - 1, min(len(parts), _FILES)).astype(int))]
    if sum(sizes) <= BYTES:
        chosen = list(parts)
    share = max(BYTES // len(chosen), 64 << 10)
    batches: list[RawBatch] = []
    read, kept, cut = 0, 0, len(chosen) < len(parts)
    with TemporaryDirectory(prefix="graftline-look-") as folder:
        for part in chosen:
            pieces = [part] if sum(sizes) <= BYTES else excerpt(part, share, Path(folder))
            cut |= pieces != [part]
            for piece in pieces:
                for batch in _rows(piece, asked, sliced=piece != part):
                    if kept > KEPT_BYTES:
                        cut = True
                        break
                    first = sum(before.rows for before in batches)
                    batches.append(replace(batch, first_row=first))
                    kept += sum(array.nbytes for array in batch.columns.values())
                read += _size(piece.path)
    if not batches:
        raise InputError(path, "no rows", expected="at least one")
    looked = sum(batch.rows for batch in batches)
    rows = looked if not cut else _count(parts) or round(looked * sum(sizes) / max(1, read))
    return Look(path, tuple(parts), sum(sizes), rows, not cut, tuple(batches))


def _rows(part: Part, asked: Asked, *, sliced: bool) -> Iterator[RawBatch]:
    """Yield a part's batches; of a slice none from where it turns out to have begun inside a cell."""
    try:
        for batch in part.reader.batches(part.path, asked, 0):
            if sliced and (batch.cells != len(asked.columns)).mean() > _MISFITS:
                return
            yield batch
    except InputError:
        if not sliced:
            raise


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


def excerpt(part: Part, share: int, folder: Path) -> list[Part]:
    """Return small files with about `share` bytes from all over a large one; the part itself where it is small.

    A format that has no such excerpts is read from its start.
    """
    size = _size(part.path)
    if size <= share:
        return [part]
    if part.path.suffix == ".parquet":
        return [replace(part, path=_row_groups(part.path, share, folder))]
    return [replace(part, path=path) for path in _slices(part.path, size, share, folder)]


def _slices(path: Path, size: int, share: int, folder: Path) -> Iterator[Path]:
    """Yield files with the first line and then some whole lines of `path`, from evenly spaced places."""
    with path.open("rb") as file:
        head = file.readline(share)
        for number in range(_SLICES):
            file.seek(number * (size // _SLICES))
            if number:
                file.readline(share)  # the rest of a line
            lines = file.read(share // _SLICES)
            whole = lines[: lines.rfind(b"\n") + 1]
            if whole:
                out = folder / f"{number}-{path.name}"
                out.write_bytes((head if number else b"") + whole)
                yield out
                out.unlink()


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
