"""Questions to a model that sees several columns: whole rows of JSON Lines and Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import InputError, brief
from graftline.values.column import Question, StoredFeature

SUFFIXES = (".jsonl", ".parquet")


def read_rows(paths: list[Path], features: Sequence[StoredFeature]) -> list[Question]:
    """Return the rows of files, or of folders of them; a question's value is a tuple, a value a feature.

    Raises:
        InputError: a file is not there or not readable, a row lacks a column, or there is no row at all.
    """
    found = [
        Question(name, tuple(feature.question(name, row.get(feature.name)) for feature in features))
        for path in paths
        for name, row in rows_of(path, [feature.name for feature in features])
    ]
    if not found:
        where = ", ".join(map(str, paths)) or "the command line"
        names = ", ".join(feature.name for feature in features)
        raise InputError(where, "no rows", expected=f"{' or '.join(SUFFIXES)} files with {names}")
    return found


def rows_of(path: Path, names: list[str], maybe: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield rows and their names; of Parquet the columns `names`, and those of `maybe` that are there.

    Raises:
        InputError: as `read_rows` does.
    """
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES):
            yield from rows_of(inner, names, maybe)
    elif not path.exists():
        raise InputError(path, "no such file or folder", fix="check the path")
    elif path.suffix.lower() == ".jsonl":
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                row = json.loads(line or b"null")
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}", f"not JSON ({error})") from None
            if isinstance(row, dict):
                yield f"{path}:{number}", row
            elif line.strip():
                raise InputError(f"{path}:{number}", "no object", expected=f"one with {', '.join(names)}")
    elif path.suffix.lower() == ".parquet":
        try:
            there = [name for name in maybe if name in pq.read_schema(path).names]
            rows = pq.read_table(path, columns=[*names, *there]).to_pylist()
        except (pa.ArrowException, KeyError, OSError, ValueError) as error:
            raise InputError(path, brief(error), expected=f"Parquet with {', '.join(names)}") from None
        yield from ((f"{path}#{number}", row) for number, row in enumerate(rows))
    else:
        raise InputError(path, f"a file of type '{path.suffix}'", expected=" or ".join(SUFFIXES))
