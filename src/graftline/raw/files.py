"""The table of formats, which files of a raw folder are read, and their rows one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from graftline.errors import InputError, nearest
from graftline.raw import sniff
from graftline.raw.batches import RawBatch
from graftline.raw.delimited import Delimited
from graftline.raw.jsonl import JsonLines
from graftline.raw.parquet import Parquet
from graftline.raw.pictures import Pictures
from graftline.raw.reader import Asked, Reader, Source, first_line
from graftline.raw.webdataset import WebDataset

READERS: tuple[Reader, ...] = (Pictures(), Parquet(), Delimited(), JsonLines(), WebDataset())
"""The first that takes a path reads it; formats of whole folders come before those of single files."""
LOOKED_AT = 16
"""How many files `look` opens at most."""
SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)


@dataclass(frozen=True)
class Part:
    """What one reader reads: a file, or a folder that is one source as a whole."""

    path: Path
    reader: Reader


def raw_files(raw: Path, source: Source | None = None) -> list[Part]:
    """Return what is to be read of the folder `raw` (or the file `raw` itself), in the order of names.

    Names that start with a dot are skipped, and those that start with `_` and are no tables: macOS and Spark leave
    checksums and markers so.

    Raises:
        InputError: there is none, or something else is there too.
    """
    readers = _readers(source or Source())
    if whole := _part(raw, readers):
        return [whole]
    found = [raw]
    if raw.is_dir():
        found = sorted((path for path in raw.iterdir() if not _is_marker(path)), key=lambda p: p.name)
    parts = []
    for path in found:
        if not path.is_file():
            raise InputError(path, "not a regular file", expected=f"only {_listed('and')} files", fix="move it away")
        part = _part(path, readers)
        if part is None:
            raise InputError(
                path,
                f"unknown file type '{path.suffix}'",
                expected=_listed("or"),
                fix="convert it, or move it out of the raw folder",
            )
        parts.append(part)
    if not parts:
        raise InputError(
            raw, "an empty folder", expected=f"at least one {_listed('or')} file", fix="put the raw data there"
        )
    return parts


def read_batches(parts: Sequence[Part], asked: Asked) -> Iterator[RawBatch]:
    """Yield the rows of `parts` in batches of at most MAX_ROWS rows and about BATCH_BYTES bytes.

    Raises:
        InputError: a file is empty, damaged or of another format, or its columns are not exactly those asked for.
    """
    first_row = 0
    for part in parts:
        if part.path.is_file() and part.path.stat().st_size == 0:
            raise InputError(
                part.path, "an empty file (0 bytes)", expected="a table", fix="fetch it again or delete it"
            )
        before = first_row
        for batch in part.reader.batches(part.path, asked, first_row):
            first_row += batch.rows
            yield batch
        if first_row == before and part.path.suffix != ".parquet":  # Spark writes parts without rows; text was cut off
            raise InputError(part.path, "no rows", expected="at least one", fix="fetch it again or delete it")
    if not first_row:
        raise InputError(parts[0].path, "no rows", expected="at least one", fix="fetch it again or delete it")


@dataclass(frozen=True)
class Found:
    """What raw data seems to be; `look` returns it."""

    parts: list[Part]
    """In the order in which they are read."""
    format: str
    """The word of the first part's reader."""
    source: Source
    """What a contract is to say so that the data is read as it was for the sample."""
    bytes: int
    """Size of all files."""
    schema: pa.Schema
    """The columns; where values are text (CSV), the types that those of the sample seem to spell."""
    is_text: bool
    """Whether values are text still to be parsed; the sample then holds strings."""
    rows: int
    """How many there are, or seem to be."""
    exact: bool
    """Whether that was counted."""
    sample: pa.Table
    """Some rows, evenly spaced in what was read: everything if `exact`, else the beginnings of some parts."""
    misfits: int
    """How many rows of what was read have too few or too many cells."""


def look(raw: Path, source: Source | None = None, *, rows: int = 1000, budget: int = 64 << 20) -> Found:
    """Return what the folder or file `raw` holds, in bounded time and memory whatever its size.

    Args:
        source: how it is to be read; without it that is guessed from its beginning.
        rows: the most rows of the sample.
        budget: about how many bytes of values are read.

    Raises:
        InputError: it cannot be read.
    """
    parts = raw_files(raw, source)
    first = parts[0]
    if source is None:
        source = first.reader.guess(first.path)
    schema = first.reader.schema(first.path, source)
    asked = Asked(schema.names, source, "drop")
    chosen = parts if len(parts) <= LOOKED_AT else [parts[n * len(parts) // LOOKED_AT] for n in range(LOOKED_AT)]
    tables, seen, misfits, size, text, whole = [], 0, 0, 0, False, len(chosen) == len(parts)
    for part in chosen:
        share = size + max(1, (budget - size) // (len(chosen) - chosen.index(part)))
        for batch in part.reader.batches(part.path, asked, 0):
            table = pa.table(batch.columns)
            size += table.nbytes
            seen, text = seen + batch.rows, batch.is_text
            misfits += int((batch.cells != len(schema.names)).sum())
            tables.append(_thinned(table, rows))
            if size >= share:
                whole = False
                break
    sample = _thinned(_joined(raw, tables, schema), rows)
    total = sum(_size(part.path) for part in parts)
    counts = [part.reader.rows(part.path, source) for part in chosen]
    share_seen = sum(_size(part.path) for part in chosen) / max(1, total)
    counted = int(sum(count for count, _ in counts) / max(share_seen, 1e-9))
    if text:
        kinds = [(name, sniff.guess_type(sample[name].combine_chunks())) for name in sample.schema.names]
        schema = pa.schema(kinds)
    return Found(
        parts,
        first.reader.format,
        source,
        total,
        schema if text else sample.schema,
        text,
        seen if whole else counted,
        whole or (len(chosen) == len(parts) and all(exact for _, exact in counts)),
        sample,
        misfits,
    )


def _thinned(table: pa.Table, rows: int) -> pa.Table:
    return table.take(np.linspace(0, len(table) - 1, rows).astype(np.int64)) if len(table) > rows else table


def _joined(raw: Path, tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    if not tables:
        raise InputError(raw, "no rows", expected="at least one", fix="fetch it again or delete it")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(
            raw, f"a column of several types ({first_line(error)})", expected="one type a column"
        ) from None


def _size(path: Path) -> int:
    files = [path] if path.is_file() else (inner for inner in path.rglob("*") if inner.is_file())
    return sum(file.stat().st_size for file in files)


def _readers(source: Source) -> Sequence[Reader]:
    if source.format is None:
        return READERS
    known = [reader.format for reader in READERS]
    if source.format not in known:
        raise InputError(
            "source.format",
            f"unknown format '{source.format}'{nearest(source.format, known)}",
            expected="one of " + ", ".join(known),
        )
    return [reader for reader in READERS if reader.format == source.format]


def _part(path: Path, readers: Sequence[Reader]) -> Part | None:
    reader = next((reader for reader in readers if reader.takes(path)), None)
    return None if reader is None else Part(path, reader)


def _is_marker(path: Path) -> bool:
    return path.name.startswith(".") or (path.name.startswith("_") and path.suffix not in SUFFIXES)


def _listed(word: str) -> str:
    return f"{', '.join(SUFFIXES[:-1])} {word} {SUFFIXES[-1]}"
