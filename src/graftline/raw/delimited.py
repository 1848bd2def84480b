"""Tables of text with separators: CSV with a header line. Quoting follows RFC 4180; empty lines are skipped."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.lines import read_lines
from graftline.raw.reader import Asked, Source, check_columns


class Delimited:
    format: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix == ".csv"

    def schema(self, path: Path, source: Source) -> pa.Schema:
        _, header = _open_csv(path, ())
        return pa.schema([(name, pa.string()) for name in header])

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        columns = asked.columns
        reader, header = _open_csv(path, columns)
        order = _order(path, header, columns)
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
            if size > limits.TEXT_BYTES or len(rows) == limits.MAX_ROWS:
                yield _text_batch(path, columns, order, rows, first_row)
                first_row += len(rows)
                rows, size = [], 0
        if rows:
            yield _text_batch(path, columns, order, rows, first_row)


def _open_csv(path: Path, columns: Sequence[str]) -> tuple[Any, list[str]]:
    """Return a reader of the rows after the header, and the header. Raises InputError."""
    csv.field_size_limit(limits.MAX_LINE)
    lines = read_lines(path)
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
    return reader, _next_row(path, reader) or []


def _order(path: Path, header: list[str], columns: Sequence[str]) -> list[int]:
    """Return where each column stands. Raises InputError unless the header names exactly the columns."""
    if header and header[0] == "" and set(header[1:]) == set(columns):
        raise InputError(
            f"{path}: line 1",
            "a first column without a name: an index, as pandas writes it",
            expected="the columns " + ", ".join(columns),
            fix="write the file without it: to_csv(..., index=False)",
        )
    check_columns(f"{path}: line 1", header, columns)
    return [header.index(name) for name in columns]


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
