"""Some rows of raw data, whatever its size: all of them where they are few, else some from all over its files.

How the data is written is `raw.files.look`'s to say; it sees beginnings only, where data that is sorted looks alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import InputError
from graftline.raw import files
from graftline.raw.batches import RawBatch
from graftline.raw.files import Part
from graftline.raw.lines import COMPRESSIONS
from graftline.raw.parquet import open_parquet, rows_a_batch
from graftline.raw.reader import Asked, Source
from graftline.raw.walk import walk
from graftline.values.guesses import Sampled, names

BYTES = 32 << 20
"""Read at most, about: what is smaller is looked at whole."""
KEPT_BYTES = 256 << 20
"""Kept in memory at most, about: a small Parquet file can hold much."""
_FILES = 64
_PICTURES = 2000
"""Files of a folder that is one source as a whole."""
_OF_A_FOLDER = 8
"""Of each folder in it: each is a class."""
_FOLDER_SHARES = 4
"""How many times as much may be read to have them."""
_SLICES = 16
"""Of one file that is too large to be looked at whole."""
_MISFITS = 0.2
"""Share of rows with a wrong number of cells from which on a slice began inside a quoted cell."""


@dataclass(frozen=True)
class Look:
    """What was seen of raw data."""

    path: Path
    parts: tuple[Part, ...]
    source: Source
    """How it is to be read."""
    format: str
    size: int
    """Bytes of all files."""
    rows: int
    """Of all files: counted where `whole`, else about."""
    whole: bool
    """Whether every row was looked at."""
    batches: tuple[RawBatch, ...]
    """The rows that were looked at, numbered from 0."""
    class_names: Mapping[str, Sequence[str]]
    """Of columns of numbers that stand for classes, what these are called."""

    @property
    def looked(self) -> int:
        return sum(batch.rows for batch in self.batches)

    @cached_property
    def columns(self) -> dict[str, Sampled]:
        """Each column in the rows that were looked at, in the files' order."""
        text = self.batches[0].is_text
        return {
            name: Sampled(name, self._column(name), text, tuple(self.class_names.get(name, ())))
            for name in self.batches[0].columns
        }

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

    @cached_property
    def files(self) -> list[Path]:
        """The files that the data is in, hidden ones left out."""
        return [file for part in self.parts for file in _files(part.path)]

    @property
    def seen(self) -> str:
        """How much was looked at, for people."""
        return f"all {self.rows:,} rows" if self.whole else f"{self.looked:,} of about {self.rows:,} rows"


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (path / name for name in walk(path, [], links=True))


def look(path: Path) -> Look:
    """Return what is seen of the file or folder `path`, in bounded time and memory.

    Raises:
        InputError: it cannot be read, or its files have different columns.
    """
    found = files.look(path, rows=1, budget=1 << 20)
    asked = Asked(list(names(found.sample.schema)), found.source, "drop")
    batches: list[RawBatch] = []
    cut = found.bytes > BYTES
    kept = looked = 0
    with TemporaryDirectory(prefix="graftline-look-") as folder:
        pieces = _some(found.parts, asked, Path(folder)) if cut else (_rows(part, asked) for part in found.parts)
        for piece in pieces:
            for batch in piece:
                if kept > KEPT_BYTES:
                    cut = True
                    break
                batches.append(replace(batch, first_row=looked))
                kept += sum(array.nbytes for array in batch.columns.values())
                looked += batch.rows
    if not batches:
        raise InputError(path, "no rows", expected="at least one")
    rows = max(found.rows, looked) if cut else looked
    parts, seen = tuple(found.parts), tuple(batches)
    return Look(path, parts, found.source, found.format, found.bytes, rows, not cut, seen, found.class_names)


def _rows(part: Part, asked: Asked) -> Iterator[RawBatch]:
    return files.read_part(part, asked, 0)


# Rows from all over large data


def _some(parts: Sequence[Part], asked: Asked, folder: Path) -> Iterator[Iterable[RawBatch]]:
    """Yield some rows of some parts, of each about an equal share of BYTES."""
    places = np.unique(np.linspace(0, len(parts) - 1, min(len(parts), _FILES)).astype(int))
    share = max(BYTES // len(places), 64 << 10)
    for part in (parts[place] for place in places):
        if part.path.is_dir():
            yield _rows(replace(part, path=_folder(part.path, share, folder)), asked)
            continue
        size = part.path.stat().st_size
        if size <= share:
            yield _rows(part, asked)
        elif part.path.suffix == ".parquet":
            yield _rows(replace(part, path=_row_groups(part.path, share, folder)), asked)
        elif _in_lines(part, asked.source):
            for number in range(_SLICES):
                yield _slice(part, asked, folder / part.path.name, number * (size // _SLICES), share // _SLICES)
        else:
            yield _beginning(part, asked, share)


def _in_lines(part: Part, source: Source) -> bool:
    """Return whether a line can be found from anywhere in the file."""
    plain = part.reader.format in files.MAY_BE_CUT and part.path.suffix not in COMPRESSIONS
    return plain and "\n".encode(source.encoding) == b"\n"


def _beginning(part: Part, asked: Asked, share: int) -> Iterator[RawBatch]:
    size = 0
    for batch in _rows(part, asked):
        yield batch
        size += sum(array.nbytes for array in batch.columns.values())
        if size > share:
            return


def _slice(part: Part, asked: Asked, out: Path, start: int, size: int) -> Iterable[RawBatch]:
    """Return the whole rows among the `size` bytes from `start` on; none if it cannot be told where one begins.

    Cells in quotes may hold line ends: a line end outside of quotes has an even number of them before it, counted from
    outside, an odd one counted from inside. The rows from there on have the right number of cells if the count began on
    the right side.
    """
    with part.path.open("rb") as file:
        head = b"" if asked.source.header else file.readline(size)
        file.seek(max(start, len(head)))
        text = file.read(size)
    for inside in (False, True) if start else (False,):
        ends = [end for end, quotes in _line_ends(text, asked.source.quote.encode()) if quotes % 2 == inside]
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
            return found
    return ()


def _line_ends(text: bytes, quote: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each line ends, and how many quotes stand before."""
    end = quotes = 0
    while (following := text.find(b"\n", end) + 1) > 0:
        quotes += text.count(quote, end, following)
        end = following
        yield end, quotes


def _row_groups(path: Path, share: int, folder: Path) -> Path:
    """Return a file with the first rows of evenly spaced row groups; never more at a time than a run reads."""
    out = folder / path.name
    with open_parquet(path) as file:
        groups = np.unique(np.linspace(0, file.num_row_groups - 1, min(_SLICES, file.num_row_groups)).astype(int))
        a_row = max(1, path.stat().st_size // max(1, file.metadata.num_rows))
        rows = max(1, min(share // len(groups) // a_row, rows_a_batch(file)))
        with pq.ParquetWriter(out, file.schema_arrow) as writer:
            for group in groups:
                batch = next(file.iter_batches(batch_size=rows, row_groups=[int(group)]), None)
                if batch is not None:
                    writer.write_batch(batch)
    return out


def _folder(path: Path, share: int, folder: Path) -> Path:
    """Return a folder with some of the files of `path` at their places: of each folder in it evenly spaced ones, and
    what tells of them."""
    inner = [file for file in _files(path) if not file.is_symlink()]
    telling = [file for file in inner if file.suffix in (".json", ".csv", ".jsonl")]
    by_folder: dict[Path, list[Path]] = {}
    for file in inner:
        if file.suffix not in (".json", ".csv", ".jsonl"):
            by_folder.setdefault(file.parent, []).append(file)
    each = max(_OF_A_FOLDER, _PICTURES // max(1, len(by_folder)))
    spaced = [some[:: max(1, len(some) // each)] for some in by_folder.values()]
    others = [file for turn in zip_longest(*spaced) for file in turn if file is not None]  # one of each in turn
    out, left, least = folder / "some", share, _OF_A_FOLDER * len(by_folder)
    for number, file in enumerate([*telling, *others]):
        left -= file.stat().st_size
        if left < 0 and (number >= least or left < -_FOLDER_SHARES * share):
            break
        target = out / file.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return out
