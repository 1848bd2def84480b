"""JSON lines: https://jsonlines.org. A line is an object; a key that it lacks is null; empty lines are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from graftline.errors import InputError, brief
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.faults import half_a_pair
from graftline.raw.lines import read_head, read_lines, scaled
from graftline.raw.reader import Asked, Reader, Source, check_columns

SEEN = 1000
"""At most so many lines tell of the columns."""


class JsonLines(Reader):
    format: ClassVar[str] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        head, size = read_head(path)
        return scaled(sum(1 for line in head.split(b"\n") if line.strip()), head, size)

    def schema(self, path: Path, source: Source) -> pa.Schema:
        first: list[dict[str, Any]] = []
        size = 0
        for where, line in _full_lines(path, source):
            first.append(_parse_object(where, line))
            size += len(line)
            if len(first) == SEEN or size > limits.TEXT_BYTES:
                break
        names = list(dict.fromkeys(name for found in first for name in found))
        return pa.schema([(name, _array(path, name, [row.get(name) for row in first], 0).type) for name in names])

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        paths = {name: asked.found_as.get(name, name) for name in asked.columns}
        wanted = set(paths.values())
        rows: list[list[Any]] = []
        dropped: dict[str, None] = {}
        size = 0

        def batch() -> RawBatch:
            columns = {
                name: _array(path, name, [row[place] for row in rows], first_row) for place, name in enumerate(paths)
            }
            cells = np.full(len(rows), len(paths), np.int64)
            return RawBatch(path, first_row, columns, False, cells, tuple(dropped))

        for where, line in _full_lines(path, asked.source):
            found = _parse_object(where, line)
            for name in _others(found, "", wanted):
                if asked.others == "refuse":
                    check_columns(where, [*asked.names, *_others(found, "", wanted)], asked)
                dropped[name] = None
            rows.append([_value(found, name) for name in paths.values()])
            size += len(line)
            if size > limits.TEXT_BYTES or len(rows) == limits.MAX_ROWS:
                yield batch()
                first_row += len(rows)
                rows, dropped, size = [], {}, 0
        if rows:
            yield batch()


def _others(found: dict[str, Any], before: str, wanted: set[str]) -> Iterator[str]:
    """Yield the keys that are not wanted, of objects in which a key is wanted those inside."""
    for key, value in found.items():
        name = before + key
        if name in wanted:
            continue
        if isinstance(value, dict) and any(other.startswith(f"{name}.") for other in wanted):
            yield from _others(value, f"{name}.", wanted)
        elif value is not None or not any(other.startswith(f"{name}.") for other in wanted):
            yield name


def _value(found: Any, name: str) -> Any:
    """Return what stands under a key, or under a path of keys; None if nothing does."""
    if not isinstance(found, dict):
        return None
    if name in found or "." not in name:
        return found.get(name)
    ends = (place for place, character in enumerate(name) if character == ".")
    return next((_value(found[name[:end]], name[end + 1 :]) for end in ends if name[:end] in found), None)


def _full_lines(path: Path, source: Source) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not empty, each with its place for errors."""
    lines = enumerate(read_lines(path, source.encoding), start=1)
    return ((f"{path}: line {number}", line) for number, line in lines if line.strip())


def _parse_object(where: str, line: str) -> dict[str, Any]:
    """Return the object on a line. Raises InputError."""
    try:
        found = json.loads(line, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
        if "\\u" in line:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    except UnicodeEncodeError:
        raise half_a_pair(where) from None
    except RecursionError:
        raise InputError(where, "nested too deep", expected="an object of plain values") from None
    except ValueError as error:
        raise InputError(
            where, f"not JSON ({brief(error)})", expected="one object a line", fix="correct the line"
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


def _array(path: Path, name: str, values: list[Any], first_row: int) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: column '{name}'",
            f"no one type in rows {first_row} to {first_row + len(values) - 1} ({brief(error)})",
            expected="values of one type, or null",
            fix="correct the file",
        ) from None
