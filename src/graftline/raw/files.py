"""The table of formats, which files of a raw folder are read, and their rows one after another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from graftline.errors import InputError, brief, nearest
from graftline.raw import sniff
from graftline.raw.aligned import Aligned
from graftline.raw.arrow import Arrow
from graftline.raw.batches import RawBatch
from graftline.raw.coco import Coco
from graftline.raw.delimited import Delimited
from graftline.raw.histories import gathered
from graftline.raw.jsonl import JsonLines
from graftline.raw.media import Clips, Pictures
from graftline.raw.parquet import Parquet
from graftline.raw.reader import Asked, Reader, Source, check_columns
from graftline.raw.saved import Saved
from graftline.raw.squad import Squad
from graftline.raw.tmx import Tmx
from graftline.raw.voc import Voc
from graftline.raw.webdataset import WebDataset
from graftline.raw.xlsx import Xlsx

READERS: tuple[Reader, ...] = (
    *(Saved(), Coco(), Voc(), Pictures(), Clips(), Aligned()),
    *(Parquet(), Arrow(), Delimited(), JsonLines(), Squad(), Tmx(), Xlsx(), WebDataset()),
)
"""The first that takes a path reads it; formats of whole folders come before those of single files."""
MAY_BE_CUT = ("csv", "jsonl")
"""Formats in which a file without rows may have lost them; others say it, as parts that Spark writes do."""
LOOKED_AT = 16
"""How many files `look` opens at most."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile("0|-?[1-9][0-9]{0,17}")
_CONVERSIONS = {
    ".json": "convert it to JSON lines, such as with `jq -c '.[]'`",
    ".xls": "save it as .xlsx or .csv",
    ".ods": "save it as .xlsx or .csv",
    ".zip": "unpack it",
    ".pkl": "write it as Parquet: nothing is unpickled",
}
SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)


@dataclass(frozen=True)
class Part:
    """What one reader reads: a file, or a folder that is one source as a whole."""

    path: Path
    reader: Reader
    partition: Mapping[str, int | str | None] = field(default_factory=dict)
    """Columns that the file's folders tell, as Spark and Hive name them: `year=2024`."""


def raw_files(raw: Path, source: Source | None = None) -> list[Part]:
    """Return what is to be read of the folder `raw` (or the file `raw` itself), in the order of names.

    Names that start with a dot are skipped, and those that start with `_` and are no tables: macOS and Spark leave
    checksums and markers so. Folders are looked into if their names are of the form `column=value`.

    Raises:
        InputError: there is none, or something else is there too.
    """
    source = source or Source()
    readers = _readers(source)
    whole = _reader(raw, readers) or (readers[0] if raw.is_file() and source.format else None)
    if whole is not None:
        return [Part(raw, whole)]
    parts = list(_parts(raw, source, readers, {}) if raw.is_dir() else [_part(raw, source, readers, {})])
    if not parts:
        raise InputError(
            raw, "an empty folder", expected=f"at least one {_listed('or')} file", fix="put the raw data there"
        )
    return _with_numbers(parts)


def _parts(folder: Path, source: Source, readers: Sequence[Reader], partition: Mapping[str, Any]) -> Iterator[Part]:
    passed = None if partition else source.catalogue  # it lies in the raw folder itself
    found = (path for path in folder.iterdir() if not _is_marker(path) and path.name != passed)
    for path in sorted(found, key=lambda p: p.name):
        name, divided, value = path.name.partition("=")
        if path.is_dir() and divided and name:
            inside = {unquote(name): None if value == _NO_VALUE else unquote(value)}
            yield from _parts(path, source, readers, {**partition, **inside})
        else:
            yield _part(path, source, readers, partition)


def _part(path: Path, source: Source, readers: Sequence[Reader], partition: Mapping[str, Any]) -> Part:
    if not path.is_file():
        raise InputError(path, "not a regular file", expected=f"only {_listed('and')} files", fix="move it away")
    reader = readers[0] if source.format is not None else _reader(path, readers)
    if reader is None:
        raise InputError(
            path,
            f"unknown file type '{path.suffix}'",
            expected=_listed("or"),
            fix=_CONVERSIONS.get(path.suffix.lower(), "convert it, or move it out of the raw folder"),
        )
    return Part(path, reader, partition)


def _with_numbers(parts: list[Part]) -> list[Part]:
    """Return the parts with those columns of their folders as whole numbers that hold nothing else."""
    names = parts[0].partition.keys()
    if other := next((part for part in parts if part.partition.keys() != names), None):
        raise InputError(
            other.path,
            f"in folders of the columns {', '.join(other.partition) or '(none)'}",
            expected=f"{', '.join(names) or '(none)'}, as the first file is",
            fix="keep files of one layout",
        )
    values = {name: {part.partition[name] for part in parts} - {None} for name in names}
    numbers = {name for name in names if all(_WHOLE.fullmatch(str(value)) for value in values[name])}
    return [
        replace(part, partition={k: int(v) if k in numbers and v is not None else v for k, v in part.partition.items()})
        for part in parts
    ]


def read_batches(parts: Sequence[Part], asked: Asked) -> Iterator[RawBatch]:
    """Yield the rows of `parts` in batches of at most MAX_ROWS rows and about BATCH_BYTES bytes.

    Interactions become a row a user, if `asked.source` names the column of users.

    Raises:
        InputError: a file is empty, damaged or of another format, or its columns are not those asked for.
    """
    if asked.source.user is not None:
        yield from gathered(partial(read_batches, parts), asked)
        return
    first_row = 0
    for part in parts:
        before = first_row
        for batch in read_part(part, asked, first_row):
            first_row += batch.rows
            yield batch
        if first_row == before and part.reader.format in MAY_BE_CUT:
            raise InputError(part.path, "no rows", expected="at least one", fix="fetch it again or delete it")
    if not first_row:
        raise InputError(parts[0].path, "no rows", expected="at least one", fix="fetch it again or delete it")


def read_part(part: Part, asked: Asked, first_row: int) -> Iterator[RawBatch]:
    """Yield the rows of one part, with the columns of its folders. Raises InputError."""
    if part.path.is_file() and part.path.stat().st_size == 0:
        raise InputError(part.path, "an empty file (0 bytes)", expected="a table", fix="fetch it again or delete it")
    names = {name: asked.found_as.get(name, name) for name in asked.columns}
    outside = {name: part.partition[found] for name, found in names.items() if found in part.partition}
    unasked = tuple(name for name in part.partition if name not in asked.names)
    if unasked and asked.others == "refuse":
        check_columns(part.path, [*asked.names, *unasked], asked)
    inside = replace(asked, columns=[name for name in asked.columns if name not in outside])
    for batch in part.reader.batches(part.path, inside, first_row):
        columns = batch.columns | {name: _repeated(value, batch) for name, value in outside.items()}
        cells = batch.cells + len(outside)
        yield replace(batch, columns=columns, cells=cells, dropped=batch.dropped + unasked) if part.partition else batch


def _repeated(value: int | str | None, batch: RawBatch) -> pa.Array:
    if batch.is_text and value is not None:
        value = str(value)
    return pa.repeat(pa.scalar(value, pa.int64() if isinstance(value, int) else pa.string()), batch.rows)


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
    class_names: dict[str, list[str]]
    """Of columns of numbers that stand for classes, what these are called, where Hugging Face datasets wrote it."""


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
    named = _class_names(schema)
    asked = Asked([*schema.names, *first.partition], source, "drop")
    chosen = parts if len(parts) <= LOOKED_AT else [parts[n * len(parts) // LOOKED_AT] for n in range(LOOKED_AT)]
    tables, seen, misfits, size, text, whole = [], 0, 0, 0, False, len(chosen) == len(parts)
    for part in chosen:
        share = size + max(1, (budget - size) // (len(chosen) - chosen.index(part)))
        for batch in read_part(part, asked, 0):
            table = pa.table(batch.columns)
            size += table.nbytes
            seen, text = seen + batch.rows, batch.is_text
            misfits += int((batch.cells != len(asked.columns)).sum())
            tables.append(_thinned(table, rows))
            if size >= share:
                whole = False
                break
    sample = _thinned(_joined(raw, tables), rows)
    total = sum(_size(part.path) for part in parts)
    counts = [part.reader.rows(part.path, source) for part in chosen]
    share_seen = sum(_size(part.path) for part in chosen) / max(1, total)
    counted = int(sum(count for count, _ in counts) / max(share_seen, 1e-9))
    if text:
        kinds = [
            (
                field.name,
                sniff.guess_type(sample[field.name].combine_chunks()) if field.type == pa.string() else field.type,
            )
            for field in sample.schema
        ]
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
        named,
    )


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return what a schema's metadata say of classes: https://huggingface.co/docs/datasets/about_dataset_features."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(each) for each in feature["names"]]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):  # none, or not as it writes them
        return {}


def _thinned(table: pa.Table, rows: int) -> pa.Table:
    return table.take(np.linspace(0, len(table) - 1, rows).astype(np.int64)) if len(table) > rows else table


def _joined(raw: Path, tables: list[pa.Table]) -> pa.Table:
    if not tables:
        raise InputError(raw, "no rows", expected="at least one", fix="fetch it again or delete it")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(raw, f"a column of several types ({brief(error)})", expected="one type a column") from None


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


def _reader(path: Path, readers: Sequence[Reader]) -> Reader | None:
    return next((reader for reader in readers if reader.takes(path)), None)


def _is_marker(path: Path) -> bool:
    return path.name.startswith(".") or (path.name.startswith("_") and not path.name.endswith(SUFFIXES))


def _listed(word: str) -> str:
    return f"{', '.join(SUFFIXES[:-1])} {word} {SUFFIXES[-1]}"
