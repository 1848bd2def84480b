"""Tables of text with separators: CSV with a header line. Quoting follows RFC 4180; empty lines are skipped."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from graftline.errors import InputError
from graftline.raw import limits, sniff
from graftline.raw.batches import RawBatch
from graftline.raw.lines import ending, read_head, read_lines, scaled
from graftline.raw.reader import Asked, Reader, Source
from graftline.raw.rows import check_header, text_batches

_TAB = ".tsv"
_EXCEL = re.compile(r"sep=(.)\s*", re.DOTALL)
"""A first line by which Excel is told the separator."""


class Delimited(Reader):
    format: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def guess(self, path: Path) -> Source:
        return sniff.guess(*read_head(path))

    def schema(self, path: Path, source: Source) -> pa.Schema:
        table = _open_table(path, Asked((), source))
        return pa.schema([(name, pa.string()) for name in table.header])

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        head, size = read_head(path)
        count = len(sniff.divide(head.decode(source.encoding, "replace"), source.delimiter or ",", source.quote))
        return scaled(max(0, count - (source.header is None)), head, size)

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        table = _open_table(path, asked)
        where = f"{path}: line 1" if table.has_header else f"{path}: source.header"
        dropped = check_header(where, table.header, asked)
        yield from text_batches(path, table.header, table.rows(), asked, first_row, dropped)


@dataclass(frozen=True)
class _Table:
    path: Path
    reader: Any
    header: list[str]
    has_header: bool
    """Whether it stands in the file."""
    told: bool
    """Whether a line for Excel that says the separator stands before."""

    def rows(self) -> Iterator[list[str]]:
        while (row := _next_row(self.path, self.reader)) is not None:
            if self.has_header and row == self.header and len(row) > 1:
                raise InputError(
                    f"{self.path}: line {self.reader.line_num}",
                    "the header again, as a data row",
                    expected="data",
                    fix="delete the line; files were probably joined",
                )
            yield row


def heading(path: Path, asked: Asked) -> tuple[str, int]:
    """Return what stands between the cells, and how many lines that are not empty stand before the rows.

    Raises:
        InputError: it is no CSV.
    """
    table = _open_table(path, asked)
    return str(table.reader.dialect.delimiter), table.told + table.has_header


def _open_table(path: Path, asked: Asked) -> _Table:
    """Return the table, its header read. Raises InputError."""
    csv.field_size_limit(limits.MAX_LINE)
    source = asked.source
    lines = read_lines(path, source.encoding)
    head: list[str] = []  # with the empty lines before the header: errors count lines
    while not "".join(head).strip() and (line := next(lines, None)) is not None:
        head.append(line)
    if not "".join(head).strip():
        raise InputError(path, "no header line", expected="the columns " + ", ".join(asked.names), fix="fetch it again")
    if "\r" in head[-1].removesuffix("\n").removesuffix("\r"):
        raise InputError(
            path,
            "its line ends are CR alone",
            expected="LF or CRLF",
            fix="convert the line ends, such as with `tr '\\r' '\\n'`",
        )
    delimiter = source.delimiter
    if told := _EXCEL.fullmatch(head[-1]):
        delimiter = delimiter or told[1]
        head = [*("\n" for _ in head), next(lines, "")]
    reader = csv.reader(
        itertools.chain(head, lines),
        strict=True,
        delimiter=delimiter or _delimiter(path, head[-1], asked),
        quotechar=source.quote,
        escapechar=source.escape,
    )
    if source.header is not None:
        return _Table(path, reader, list(source.header), False, told is not None)
    return _Table(path, reader, _next_row(path, reader) or [], True, told is not None)


def _delimiter(path: Path, header: str, asked: Asked) -> str:
    """Return the separator by which the header names the columns: comma, semicolon (Excel in Europe) or tab.

    If none does, that of the file's ending: the error about the columns then says what was found.
    """
    default = "\t" if ending(path) == _TAB else ","
    wanted = set(asked.names)

    def named(delimiter: str) -> bool:
        found = next(csv.reader([header], delimiter=delimiter, quotechar=asked.source.quote), [])
        return set(found) - {""} == wanted or (asked.others == "drop" and wanted <= set(found))

    return next((each for each in (default, ",", ";", "\t") if wanted and named(each)), default)


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
