"""Folders that Hugging Face datasets saves (`save_to_disk`), read without that library.

state.json names the files, streams of Arrow. Of several splits, dataset_dict.json names the folders, one a split,
which becomes the column `split`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from graftline.errors import InputError, brief
from graftline.raw.arrow import Arrow
from graftline.raw.batches import RawBatch
from graftline.raw.reader import Asked, Reader, Source, check_columns

SPLIT = "split"
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_ARROW = Arrow()


class Saved(Reader):
    """Of a whole folder."""

    format: ClassVar[str] = "saved"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def takes(self, path: Path) -> bool:
        return (path / _STATE).is_file() or (path / _SPLITS).is_file()

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        return sum(_ARROW.rows(file.path, source)[0] for file in _files(path)), True

    def schema(self, path: Path, source: Source) -> pa.Schema:
        first = _files(path)[0]
        found = _ARROW.schema(first.path, source)
        return found if first.split is None else found.append(pa.field(SPLIT, pa.string()))

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        for file in _files(path):
            for batch in _read(file, asked, first_row):
                yield batch
                first_row += batch.rows


@dataclass(frozen=True)
class _File:
    path: Path
    split: str | None


def _read(file: _File, asked: Asked, first_row: int) -> Iterator[RawBatch]:
    """Yield the rows of one file, with their split as a column."""
    of_split = [name for name in asked.columns if asked.found_as.get(name, name) == SPLIT]
    if file.split is None:
        yield from _ARROW.batches(file.path, asked, first_row)
        return
    if not of_split and asked.others == "refuse":
        check_columns(file.path.parent.parent, [*asked.names, SPLIT], asked)
    inner = replace(asked, columns=[name for name in asked.columns if name not in of_split])
    for batch in _ARROW.batches(file.path, inner, first_row):
        columns = batch.columns | {name: pa.repeat(pa.scalar(file.split), batch.rows) for name in of_split}
        dropped = batch.dropped if of_split else (*batch.dropped, SPLIT)
        yield replace(batch, columns=columns, cells=batch.cells + len(of_split), dropped=dropped)


def _files(folder: Path) -> list[_File]:
    """Return the files in their order. Raises InputError."""
    if not (folder / _SPLITS).is_file():
        return [_File(path, None) for path in _files_of_split(folder)]
    splits = _json(folder / _SPLITS, "splits")
    return [_File(path, name) for name in splits for path in _files_of_split(folder / _inside(folder, name))]


def _files_of_split(folder: Path) -> list[Path]:
    found = [
        entry.get("filename") if isinstance(entry, dict) else entry for entry in _json(folder / _STATE, "_data_files")
    ]
    files = [folder / _inside(folder, name) for name in found]
    for file in files:
        if not file.is_file():
            raise InputError(
                file, f"no such file, which {_STATE} names", expected="a whole folder", fix="save it again"
            )
    return files


def _inside(folder: Path, name: Any) -> str:
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        raise InputError(folder, f"{name!r} is no name of a file in it", expected="as save_to_disk writes it")
    return name


def _json(path: Path, key: str) -> list[Any]:
    """Return the list under a key of a small JSON file."""
    try:
        found = json.loads(path.read_bytes())[key]
        if not isinstance(found, list) or not found:
            raise ValueError(f"nothing in {key}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            path,
            f"not as save_to_disk writes it ({type(error).__name__}: {brief(error)})",
            expected=f"an object with a list under '{key}'",
            fix="save the data set again, or leave only its .arrow files in the folder",
        ) from None
    return found
