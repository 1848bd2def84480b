"""The table of formats, which files of a raw folder are read, and their rows one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftline.errors import InputError, nearest
from graftline.raw.batches import RawBatch
from graftline.raw.delimited import Delimited
from graftline.raw.jsonl import JsonLines
from graftline.raw.parquet import Parquet
from graftline.raw.reader import Asked, Reader, Source

READERS: tuple[Reader, ...] = (Parquet(), Delimited(), JsonLines())
"""The first that takes a path reads it; formats of whole folders come before those of single files."""
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
