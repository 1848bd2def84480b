"""Raw tables from outside, read in batches of bounded size: Parquet, CSV with a header line, JSON lines.

Nothing here trusts a file: what cannot be read ends in an InputError with the place and the way out.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.errors import InputError, nearest

SUFFIXES = (".parquet", ".csv", ".jsonl")
MAX_ROWS = 50_000
MAX_LINE = 8 << 20
"""Longest line of a CSV or JSON lines file and largest value of a Parquet file, in bytes."""
BATCH_BYTES = 8 << 20
"""Aimed size of a Parquet batch once decoded."""
TEXT_BYTES = 8 << 20
"""Aimed size of a batch of CSV or JSON lines, as text: numbers take several times as much once parsed."""

_OTHER_FORMATS = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of one file, as found."""

    file: Path
    first_row: int
    """The number of the batch's first row; rows are numbered from 0 across all files."""
    columns: dict[str, pa.Array]
    """Each column by name, equally long. Of a CSV file: strings, null for an empty cell."""
    is_text: bool
    """Whether the values are text still to be parsed (CSV)."""
    cells: np.ndarray
    """(n,), int64: how many cells each row has; a row with a wrong number has nulls in all columns."""

    @property
    def rows(self) -> int:
        return len(self.cells)


def raw_files(raw: Path) -> list[Path]:
    """Return the table files of the folder `raw` (or the file `raw` itself) in the order of their names.

    Names that start with a dot are skipped, and those that start with `_` and are no tables: macOS and Spark leave
    checksums and markers so.

    Raises:
        InputError: there is none, or something else is there too.
    """
    if raw.is_file():
        found = [raw]
    else:
        found = sorted((path for path in raw.iterdir() if not _is_marker(path)), key=lambda p: p.name)
    for path in found:
        if not path.is_file():
            raise InputError(path, "not a regular file", expected=f"only {_listed('and')} files", fix="move it away")
        if path.suffix not in SUFFIXES:
            raise InputError(
                path,
                f"unknown file type '{path.suffix}'",
                expected=_listed("or"),
                fix="convert it, or move it out of the raw folder",
            )
    if not found:
        raise InputError(
            raw, "an empty folder", expected=f"at least one {_listed('or')} file", fix="put the raw data there"
        )
    return found


def _is_marker(path: Path) -> bool:
    return path.name.startswith(".") or (path.name.startswith("_") and path.suffix not in SUFFIXES)


def _listed(word: str) -> str:
    return f"{', '.join(SUFFIXES[:-1])} {word} {SUFFIXES[-1]}"


def read_batches(files: Sequence[Path], columns: Sequence[str]) -> Iterator[RawBatch]:
    """Yield the rows of `files` in batches of at most MAX_ROWS rows and about BATCH_BYTES bytes.

    Raises:
        InputError: a file is empty, damaged or of another format, or its columns are not exactly `columns`.
    """
    first_row = 0
    for file in files:
        if file.stat().st_size == 0:
            raise InputError(file, "an empty file (0 bytes)", expected="a table", fix="fetch it again or delete it")
        read = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}[file.suffix]
        before = first_row
        for batch in read(file, columns, first_row):
            first_row += batch.rows
            yield batch
        if first_row == before and file.suffix != ".parquet":  # Spark writes parts without rows; text was cut off
            raise InputError(file, "no rows", expected="at least one", fix="fetch it again or delete it")
    if not first_row:
        raise InputError(files[0], "no rows", expected="at least one", fix="fetch it again or delete it")


def check_columns(where: object, found: Sequence[str], expected: Sequence[str]) -> None:
    """Raise InputError unless `found` are the names in `expected`, each once, in any order."""
    repeated = sorted({name for name in found if list(found).count(name) > 1})
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if not (repeated or missing or extra):
        return
    parts = [f"column {name!r} stands twice" for name in repeated]
    parts += [f"column {name!r} is missing" for name in missing]
    parts += [f"unknown column {_short(name)}{nearest(name[:80], list(expected))}" for name in extra[:5]]
    if len(extra) > 5:
        parts.append(f"{len(extra) - 5} more unknown columns")
    raise InputError(
        where,
        "; ".join(parts),
        expected="the columns " + ", ".join(expected),
        fix="correct the file, or declare the columns in the contract",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


# Parquet


def _read_parquet(path: Path, columns: Sequence[str], first_row: int) -> Iterator[RawBatch]:
    file = _open_parquet(path)
    with file:
        check_columns(path, file.schema_arrow.names, columns)
        if file.metadata.num_rows == 0:
            return
        batches = file.iter_batches(batch_size=_rows_a_batch(file), columns=list(columns), use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)  # Arrow does not check UTF-8 and offsets on reading
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise _damaged(path, f"near row {first_row} of the raw data: {_first_line(error)}") from None
            if batch.num_rows == 0:
                continue
            arrays = {name: _decoded(batch.column(name)) for name in columns}
            for name, array in arrays.items():
                _check_sizes(path, name, array, first_row)
            yield RawBatch(path, first_row, arrays, False, np.full(batch.num_rows, len(columns), np.int64))
            first_row += batch.num_rows


def _open_parquet(path: Path) -> pq.ParquetFile:
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] != b"PAR1":
        kind = _OTHER_FORMATS.get(head[:4]) or _OTHER_FORMATS.get(head[:2])
        if kind is None and b"\0" not in head and (b"," in head or b"\n" in head):
            kind = "probably CSV"
        raise InputError(
            path,
            f"starts with {head[:12]!r}, {kind or 'not a Parquet file'}",
            expected="a Parquet file (it starts with PAR1)",
            fix="give it the right ending, or convert it",
        )
    try:
        # Column chunks are read through a small buffer: one large row group must not be in memory whole.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, _first_line(error)) from None


def _damaged(path: Path, reason: str) -> InputError:
    size = path.stat().st_size
    return InputError(
        path,
        f"truncated or damaged ({size} bytes; {reason})",
        expected="a whole Parquet file",
        fix="fetch it again, such as with `dvc pull --force`",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(". ") if lines else type(error).__name__


def _rows_a_batch(file: pq.ParquetFile) -> int:
    """Return how many rows decode to about BATCH_BYTES: 8 bytes a number (1 of 8 bits), text as stored."""
    metadata = file.metadata
    total = 0
    for group in range(metadata.num_row_groups):
        for leaf in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(leaf)
            if chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
                total += chunk.total_uncompressed_size
            else:
                width = 1 if "bitWidth=8" in str(metadata.schema.column(leaf).logical_type) else 8
                total += chunk.num_values * width
    width = max(1, int(total) // int(metadata.num_rows))
    return max(1, min(MAX_ROWS, BATCH_BYTES // width))


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _check_sizes(path: Path, name: str, array: pa.Array, first_row: int) -> None:
    kind = array.type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
    ):
        return
    lengths = pc.binary_length(array) if not hasattr(array, "offsets") else pc.list_value_length(array)
    longest = pc.max(lengths).as_py()
    if longest is not None and longest > MAX_LINE:
        row = first_row + pc.index(lengths, longest).as_py()
        raise InputError(
            path,
            f"row {row}: column '{name}' holds a value of length {longest}",
            expected=f"at most {MAX_LINE}",
            fix="remove the row",
        )


# CSV


def _read_csv(path: Path, columns: Sequence[str], first_row: int) -> Iterator[RawBatch]:
    """Yield batches of about TEXT_BYTES. Quoting follows RFC 4180; empty lines are skipped."""
    csv.field_size_limit(MAX_LINE)
    lines = _lines(path)
    head: list[str] = []  # with the empty lines before the header: errors count lines
    while not "".join(head).strip() and (line := next(lines, None)) is not None:
        head.append(line)
    if not "".join(head).strip():
        raise InputError(path, "no header line", expected="the columns " + ", ".join(columns), fix="fetch it again")
    if "\r" in head[-1].removesuffix("\n").removesuffix("\r"):
        raise InputError(
            path,
            "its line ends are CR alone",
            expected="LF or CRLF",
            fix="convert the line ends, such as with `tr '\\r' '\\n'`",
        )
    reader = csv.reader(itertools.chain(head, lines), strict=True, delimiter=_delimiter(head[-1], columns))
    header = _next_row(path, reader) or []
    if header and header[0] == "" and set(header[1:]) == set(columns):
        raise InputError(
            f"{path}: line 1",
            "a first column without a name: an index, as pandas writes it",
            expected="the columns " + ", ".join(columns),
            fix="write the file without it: to_csv(..., index=False)",
        )
    check_columns(f"{path}: line 1", header, columns)
    order = [header.index(name) for name in columns]
    rows: list[list[str]] = []
    size = 0
    while (row := _next_row(path, reader)) is not None:
        if row == header:
            raise InputError(
                f"{path}: line {reader.line_num}",
                "the header again, as a data row",
                expected="data",
                fix="delete the line; files were probably joined",
            )
        rows.append(row)
        size += sum(map(len, row))
        if size > TEXT_BYTES or len(rows) == MAX_ROWS:
            yield _text_batch(path, columns, order, rows, first_row)
            first_row += len(rows)
            rows, size = [], 0
    if rows:
        yield _text_batch(path, columns, order, rows, first_row)


def _delimiter(header: str, columns: Sequence[str]) -> str:
    """Return the separator by which the header names the columns: comma, semicolon (Excel in Europe) or tab.

    The comma if none does: the error about the columns then says what was found.
    """

    def named(delimiter: str) -> list[str]:
        return sorted(next(csv.reader([header], delimiter=delimiter), []))

    wanted = (sorted(columns), sorted(["", *columns]))
    return next((each for each in (",", ";", "\t") if named(each) in wanted), ",")


def _next_row(path: Path, reader: Any) -> list[str] | None:
    """Return the next row that is not an empty line, or None at the end of the file."""
    try:
        return next((row for row in reader if row), None)
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num}",
            f"not CSV ({error})",
            expected="comma-separated values quoted as in RFC 4180",
            fix="correct the line; an opening quote may lack its closing one",
        ) from None


def _lines(path: Path) -> Iterator[str]:
    """Yield the decoded lines of `path`, reading at most MAX_LINE + 1 bytes at once."""
    offset = 0
    with path.open("rb", buffering=1 << 20) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                _check_format(path, line)
            yield _decode(path, line, number, offset).removeprefix("\ufeff" if number == 1 else "")
            offset += len(line)


def _check_format(path: Path, line: bytes) -> None:
    if kind := _OTHER_FORMATS.get(line[:4]) or _OTHER_FORMATS.get(line[:2]):
        raise InputError(
            path,
            f"starts with {line[:4]!r}, which is {kind}",
            expected=f"{'CSV' if path.suffix == '.csv' else 'JSON lines'} in UTF-8",
            fix="convert it, or give it the right ending",
        )


def _decode(path: Path, line: bytes, number: int, offset: int) -> str:
    if len(line) > MAX_LINE:
        raise InputError(
            f"{path}: line {number}",
            f"longer than {MAX_LINE} bytes (it starts at byte {offset})",
            expected="one row a line",
            fix="remove the line; an opening quote or a line break may be missing",
        )
    nul = line.find(b"\0")
    if nul >= 0:
        raise InputError(
            f"{path}: line {number}",
            f"a NUL byte at byte {offset + nul}",
            expected="text in UTF-8",
            fix="remove it; UTF-16 text must be converted",
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: line {number}",
            f"byte {offset + error.start} (0x{line[error.start]:02x}) is not UTF-8",
            expected="text in UTF-8",
            fix="convert the file, such as with `iconv -f LATIN1 -t UTF-8`",
        ) from None


def _text_batch(
    path: Path, columns: Sequence[str], order: list[int], rows: list[list[str]], first_row: int
) -> RawBatch:
    cells = np.array([len(row) for row in rows], np.int64)
    width = len(columns)
    whole = [row if len(row) == width else [""] * width for row in rows]
    arrays = {
        name: pa.array([row[i] or None for row in whole], pa.string()) for name, i in zip(columns, order, strict=True)
    }
    return RawBatch(path, first_row, arrays, True, cells)


# JSON lines: https://jsonlines.org


def _read_jsonl(path: Path, columns: Sequence[str], first_row: int) -> Iterator[RawBatch]:
    """Yield batches of about TEXT_BYTES. A line is an object; a key that it lacks is null; empty lines are skipped."""
    rows: list[dict[str, Any]] = []
    size = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        rows.append(_parse_object(f"{path}: line {number}", line, columns))
        size += len(line)
        if size > TEXT_BYTES or len(rows) == MAX_ROWS:
            yield _object_batch(path, columns, rows, first_row)
            first_row += len(rows)
            rows, size = [], 0
    if rows:
        yield _object_batch(path, columns, rows, first_row)


def _parse_object(where: str, line: str, columns: Sequence[str]) -> dict[str, Any]:
    """Return the object on a line. Raises InputError."""
    try:
        found = json.loads(line, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
        if "\\u" in line:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    except UnicodeEncodeError:
        raise InputError(
            where, "half of a surrogate pair", expected="characters", fix="correct the \\u escape"
        ) from None
    except RecursionError:
        raise InputError(where, "nested too deep", expected="an object of plain values") from None
    except ValueError as error:
        raise InputError(
            where, f"not JSON ({_first_line(error)})", expected="one object a line", fix="correct the line"
        ) from None
    if not isinstance(found, dict):
        raise InputError(where, f"a JSON {type(found).__name__}", expected="an object", fix="correct the line")
    if extra := [name for name in found if name not in columns]:
        check_columns(where, [*columns, *extra], columns)
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _object_batch(path: Path, columns: Sequence[str], rows: list[dict[str, Any]], first_row: int) -> RawBatch:
    arrays = {}
    for name in columns:
        try:
            arrays[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: column '{name}'",
                f"no one type in rows {first_row} to {first_row + len(rows) - 1} ({_first_line(error)})",
                expected="values of one type, or null",
                fix="correct the file",
            ) from None
    return RawBatch(path, first_row, arrays, False, np.full(len(rows), len(columns), np.int64))
