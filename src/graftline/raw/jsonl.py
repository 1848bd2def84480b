"""JSON lines: https://jsonlines.org. A line is an object; a key that it lacks is null; empty lines are skipped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.lines import read_lines
from graftline.raw.reader import Asked, Source, check_columns, first_line

SEEN = 1000
"""How many lines tell of the columns."""


class JsonLines:
    format: ClassVar[str] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix == ".jsonl"

    def schema(self, path: Path, source: Source) -> pa.Schema:
        first = [_parse_object(where, line) for where, line in itertools.islice(_full_lines(path), SEEN)]
        names = list(dict.fromkeys(name for found in first for name in found))
        return pa.schema([(name, _array(path, name, first, 0).type) for name in names])

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        columns = asked.columns
        rows: list[dict[str, Any]] = []
        size = 0
        for where, line in _full_lines(path):
            found = _parse_object(where, line)
            if extra := [name for name in found if name not in columns]:
                check_columns(where, [*columns, *extra], columns)
            rows.append(found)
            size += len(line)
            if size > limits.TEXT_BYTES or len(rows) == limits.MAX_ROWS:
                yield _object_batch(path, columns, rows, first_row)
                first_row += len(rows)
                rows, size = [], 0
        if rows:
            yield _object_batch(path, columns, rows, first_row)


def _full_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not empty, each with its place for errors."""
    return ((f"{path}: line {number}", line) for number, line in enumerate(read_lines(path), start=1) if line.strip())


def _parse_object(where: str, line: str) -> dict[str, Any]:
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
            where, f"not JSON ({first_line(error)})", expected="one object a line", fix="correct the line"
        ) from None
    if not isinstance(found, dict):
        raise InputError(where, f"a JSON {type(found).__name__}", expected="an object", fix="correct the line")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _object_batch(path: Path, columns: Sequence[str], rows: list[dict[str, Any]], first_row: int) -> RawBatch:
    arrays = {name: _array(path, name, rows, first_row) for name in columns}
    return RawBatch(path, first_row, arrays, False, np.full(len(rows), len(columns), np.int64))


def _array(path: Path, name: str, rows: list[dict[str, Any]], first_row: int) -> pa.Array:
    try:
        return pa.array([row.get(name) for row in rows])
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: column '{name}'",
            f"no one type in rows {first_row} to {first_row + len(rows) - 1} ({first_line(error)})",
            expected="values of one type, or null",
            fix="correct the file",
        ) from None
