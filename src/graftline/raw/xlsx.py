"""Workbooks of Excel (.xlsx), one sheet as a table: each value as the text that CSV would hold, one row at a time.

https://ecma-international.org/publications-and-standards/standards/ecma-376/
"""

from __future__ import annotations

import datetime
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import ParseError

import pyarrow as pa

from graftline.errors import InputError, brief, nearest
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.faults import damaged
from graftline.raw.reader import Asked, Source
from graftline.raw.rows import check_header, text_batches

_OLE = b"\xd0\xcf\x11\xe0"


def _damage() -> tuple[type[Exception], ...]:
    """Return what openpyxl ends in where a file is not what it says."""
    from openpyxl.utils.exceptions import InvalidFileException

    return (
        *(InvalidFileException, ParseError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError),
        *(AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError),
    )


class Xlsx:
    format: ClassVar[str] = "xlsx"
    suffixes: ClassVar[tuple[str, ...]] = (".xlsx", ".xlsm")

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in self.suffixes

    def guess(self, path: Path) -> Source:
        with _open_workbook(path) as book:
            names = [sheet.title for sheet in book.worksheets]
            first = next((sheet.title for sheet in book.worksheets if any(_rows(path, sheet))), None)
        return Source(sheet=first if len(names) > 1 else None)

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        with _open_workbook(path) as book:
            dimension = _sheet(path, book, source).max_row
        return max(0, (dimension or 1) - (source.header is None)), False

    def schema(self, path: Path, source: Source) -> pa.Schema:
        with _open_table(path, source) as (header, _):
            return pa.schema([(name, pa.string()) for name in header])

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        with _open_table(path, asked.source) as (header, rows):
            dropped = check_header(f"{path}: the first row", header, asked)
            yield from text_batches(path, header, rows, asked, first_row, dropped)


@contextmanager
def _open_table(path: Path, source: Source) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """Open the header and the rows below it, padded to its width. Raises InputError."""
    with _open_workbook(path) as book:
        rows = _rows(path, _sheet(path, book, source))
        header = list(source.header) if source.header is not None else next(rows, None)
        if header is None:
            raise InputError(path, "an empty sheet", expected="a row with the columns' names", fix="name another sheet")
        yield header, (row + [""] * (len(header) - len(row)) for row in rows)


@contextmanager
def _open_workbook(path: Path) -> Iterator[Any]:
    from openpyxl import load_workbook  # 0.15 s, which other data need not wait for

    _check_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what a table does not need, such as drop-down lists
        try:
            book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        except _damage() as error:
            raise _damaged(path, error) from None
        try:
            yield book
        finally:
            book.close()


def _check_archive(path: Path) -> None:
    """Raise InputError unless the file is a ZIP archive of a size that is bounded once it is unpacked."""
    with path.open("rb") as file:
        if file.read(4) == _OLE:
            raise InputError(
                path,
                "an encrypted workbook, or one of Excel before 2007",
                expected="an .xlsx file",
                fix="save it as .xlsx without a password",
            )
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    except _damage() as error:
        raise _damaged(path, error) from None
    size = path.stat().st_size
    if sum(sizes.values()) > limits.expansion(size):
        raise InputError(
            path,
            f"{size} bytes that unpack to {sum(sizes.values())}",
            expected=f"at most {limits.EXPANSION} times its size",
            fix="save it anew, or as .csv",
        )
    others = {name: size for name, size in sizes.items() if "worksheets/" not in name}
    name, largest = max(others.items(), key=lambda one: one[1], default=("", 0))
    if largest > limits.MAX_STRINGS:
        raise InputError(
            path,
            f"{name} unpacks to {largest} bytes, which are in memory at once",
            expected=f"at most {limits.MAX_STRINGS}",
            fix="save it as .csv",
        )


def _sheet(path: Path, book: Any, source: Source) -> Any:
    names = [sheet.title for sheet in book.worksheets]
    if source.sheet is None and len(names) == 1:
        return book.worksheets[0]
    if source.sheet is None or source.sheet not in names:
        found = "several sheets" if source.sheet is None else f"no sheet '{source.sheet}'{nearest(source.sheet, names)}"
        fix = "name it in the contract: `source: {sheet: NAME}`"
        raise InputError(path, found, expected="one of " + ", ".join(map(repr, names[:10])), fix=fix)
    return book[source.sheet]


def _rows(path: Path, sheet: Any) -> Iterator[list[str]]:
    """Yield the rows that are not empty, without empty cells at their ends."""
    sheet.reset_dimensions()  # which a file may overstate
    rows = sheet.iter_rows(values_only=True)
    number = 0
    while True:
        try:
            row = next(rows, None)
        except _damage() as error:
            raise _damaged(path, error, f"sheet '{sheet.title}' after row {number}: ") from None
        if row is None:
            return
        number += 1
        cells = [_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield cells


def _text(value: Any) -> str:
    """Return a value as CSV would hold it: 3 for 3.0, TRUE, dates as ISO 8601 has them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _damaged(path: Path, error: Exception, place: str = "") -> InputError:
    return damaged(path, f"{place}{brief(error)}", ".xlsx file", fix="save it anew, or as .csv")
