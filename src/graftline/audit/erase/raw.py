"""Raw tables without some rows: find them, and write the file again with every other row as it was.

Of CSV and JSON lines each other byte stays. A Parquet file is encoded anew: the same values, schema and compression,
in other bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.audit.raw_row import good_rows
from graftline.durable import fsync_directory, fsync_file
from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.delimited import heading
from graftline.raw.files import raw_files, read_batches
from graftline.raw.limits import MAX_LINE
from graftline.raw.media import MediaFolder, file_inside, manifest_of
from graftline.raw.reader import Asked, Source
from graftline.values.columns import bounded, read_columns, row_digests
from graftline.values.erased import Erasures

if TYPE_CHECKING:
    from graftline.values.contract import Contract


@dataclass(frozen=True)
class Target:
    """What is to be erased."""

    rows: frozenset[bytes] = frozenset()
    """Digests, 32 bytes each."""
    subject: bytes | None = None
    """The keyed hash of a person's id, 16 bytes."""
    key: bytes = b""
    """Of that hash."""


@dataclass(frozen=True)
class Found:
    """Rows of one raw file."""

    positions: tuple[int, ...]
    """Numbers of the rows in the file, from 0, as validate counts them."""
    digests: tuple[str, ...]
    """Their digests in hex; of a row that breaks the contract there is none."""


def can_rewrite(path: Path, source: Source) -> bool:
    """Return whether rows can be taken out of a raw file."""
    if source.user is not None or path.name == source.catalogue:
        return False  # a row of the dataset is many lines of the file, or none
    usual = source.model_copy(update=dict.fromkeys(("format", "delimiter", "manifest", "catalogue"))) == Source()
    return path.suffix in _REWRITERS and (usual or path.suffix == ".parquet")


def find_rows(path: Path, contract: Contract, target: Target) -> Found:
    """Return the rows of a Parquet, CSV or JSON lines file that are the target.

    Raises:
        InputError: the file cannot be read under the contract.
    """
    hits = list(_hits(path, contract, target))
    return Found(
        tuple(batch.first_row + place for batch, place, _ in hits), tuple(digest for *_, digest in hits if digest)
    )


def is_whole(folder: Path, source: Source) -> bool:
    """Return whether a raw folder is one source whose rows are files of their own."""
    try:
        return folder.is_dir() and isinstance(raw_files(folder, source)[0].reader, MediaFolder)
    except InputError:
        return False


def find_files(folder: Path, contract: Contract, target: Target) -> dict[str, Found]:
    """Return the rows of such a folder that are the target, by the file of each. Raises InputError as `find_rows`.

    The file of a row whose picture or clip is not there is the table beside them.
    """
    found: dict[str, Found] = {}
    manifest = manifest_of(folder, contract.source)
    for batch, place, digest in _hits(folder, contract, target):
        path = file_inside(folder, batch.files[place] or "")
        if path is None:
            assert manifest is not None
            path = manifest.resolve()
        name = path.relative_to(folder.resolve()).as_posix()
        before = found.get(name, Found((), ()))
        digests = (*before.digests, *([digest] if digest else []))
        found[name] = Found((*before.positions, batch.first_row + place), digests)
    return found


def remove_files(folder: Path, names: Collection[str], contract: Contract, target: Target) -> None:
    """Delete these files of such a folder, and their rows of the table beside them, which goes first: who is killed
    between finds the files by their names. A table that no row is taken out of stays."""
    manifest = manifest_of(folder, contract.source)
    if manifest is not None and can_rewrite(manifest, contract.source):
        rows = [row for found in find_files(folder, contract, target).values() for row in found.positions]
        if rows:
            rewrite(manifest, rows, contract.asked)
    for name in names:
        path = file_inside(folder, name)
        if path is not None and (manifest is None or path != manifest.resolve()):
            path.unlink()
            fsync_directory(path.parent)


def _hits(path: Path, contract: Contract, target: Target) -> Iterator[tuple[RawBatch, int, str]]:
    """Yield each row that is the target: its batch, its place there, and its digest in hex, empty for a bad row."""
    for batch in bounded(read_batches(raw_files(path, contract.source), contract.asked), contract):
        columns = read_columns(batch, contract)
        of_subject = _of_subject(columns, contract, target, batch.rows)
        if not of_subject.any() and not target.rows:
            continue
        good = good_rows(batch, columns, contract)
        wanted = good if target.rows else good & of_subject
        taken = {name: column.take(wanted) for name, column in columns.items()}
        of_rows = np.full(batch.rows, None, object)
        if wanted.any():
            of_rows[wanted] = [digest.tobytes() for digest in row_digests(taken, contract)[1]]
        for place in range(batch.rows):
            if of_subject[place] or of_rows[place] in target.rows:
                yield batch, place, of_rows[place].hex() if of_rows[place] else ""


def _of_subject(columns: Any, contract: Contract, target: Target, count: int) -> Any:
    if target.subject is None or contract.subject is None:
        return np.zeros(count, bool)
    erasures = Erasures(contract.subject, target.key, frozenset(), frozenset({target.subject}))
    return erasures.of_subjects(erasures.hashes(columns, count), count)


def rewrite(path: Path, positions: Collection[int], asked: Asked) -> None:
    """Write the file without these rows, aside and then in place; a file that would have none left is removed."""
    gone = frozenset(positions)
    aside = path.with_name(f".{path.name}.erasing")
    left = _REWRITERS[path.suffix](path, aside, gone, asked)
    if left:
        aside.rename(path)
    else:
        aside.unlink()
        path.unlink()
    fsync_directory(path.parent)


def _parquet(path: Path, aside: Path, gone: frozenset[int], asked: Asked) -> int:
    first = left = 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        codec = _compression(file.metadata)
        with pq.ParquetWriter(aside, file.schema_arrow, compression=codec, write_page_checksum=True) as out:
            for group in range(file.metadata.num_row_groups):
                for batch in file.iter_batches(10_000, row_groups=[group], use_threads=False):
                    keep = np.array([first + place not in gone for place in range(batch.num_rows)], bool)
                    first += batch.num_rows
                    left += int(keep.sum())
                    out.write_batch(batch.filter(pa.array(keep)))
    fsync_file(aside)
    return left


def _compression(metadata: Any) -> str:
    """Return the codec of a Parquet file's first column, as pyarrow's writer names it: not always as it reads it."""
    if not (metadata.num_row_groups and metadata.num_columns):
        return "none"
    codec = str(metadata.row_group(0).column(0).compression).lower()
    return {"uncompressed": "none", "lz4_raw": "lz4", "lz4_hadoop": "lz4"}.get(codec, codec)


def _csv(path: Path, aside: Path, gone: frozenset[int], asked: Asked) -> int:
    """Copy the lines of each kept row as they are: a quoted value may hold line breaks."""
    waiting: list[bytes] = []

    def lines(raw: Any) -> Iterator[str]:
        for number, line in enumerate(raw):
            waiting.append(line)
            yield line.decode().removeprefix("\ufeff" if number == 0 else "")

    csv.field_size_limit(MAX_LINE)
    delimiter, before = heading(path, asked)
    left, number = 0, -before  # the header is no row
    with path.open("rb") as raw, aside.open("wb") as out:
        for row in csv.reader(lines(raw), strict=True, delimiter=delimiter):
            if row and number in gone:
                waiting.clear()
            elif row and number >= 0:
                left += 1
            out.writelines(waiting)
            waiting.clear()
            number += bool(row)
        out.writelines(waiting)
    fsync_file(aside)
    return left


def _jsonl(path: Path, aside: Path, gone: frozenset[int], asked: Asked) -> int:
    left = number = 0
    with path.open("rb") as raw, aside.open("wb") as out:
        for line in raw:
            if not line.strip():
                out.write(line)
                continue
            if number not in gone:
                out.write(line)
                left += 1
            number += 1
    fsync_file(aside)
    return left


_REWRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
