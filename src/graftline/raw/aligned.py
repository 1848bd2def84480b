"""Two text files whose lines belong together: `corpus.en` and `corpus.de`, or `source.txt` and `target.txt`.

A line of the one and the same line of the other are a row. A column's name is what tells the files apart: the ending,
or of .txt files the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.lines import ending, read_head, read_lines, scaled
from graftline.raw.reader import Asked, Source
from graftline.raw.rows import check_header, text_batches
from graftline.raw.sniff import guess_encoding

_LANGUAGE = re.compile(r"\.[a-z]{2,3}([_-][A-Za-z]{2,4})?")
_OTHERS = {
    ".csv", ".tsv", ".tmx", ".ipc", ".tar", ".tgz", ".zip", ".xls", ".ods", ".pkl", ".jpg", ".png", ".gif", ".txt",
    ".md", ".xml", ".log", ".py", ".sh", ".yml", ".bin", ".dat", ".db",
}  # fmt: skip
"""Endings that look like languages and are something else."""


class Aligned:
    """A `Reader` of a whole folder that holds two text files and nothing else."""

    format: ClassVar[str] = "aligned"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def takes(self, path: Path) -> bool:
        return path.is_dir() and bool(_files(path))

    def guess(self, path: Path) -> Source:
        encodings = {guess_encoding(read_head(file)[0]) for file in _files(path).values()}
        return Source(encoding=encodings.pop()) if len(encodings) == 1 else Source()

    def schema(self, path: Path, source: Source) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in _files(path)])

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        first, *_ = _files(path).values()
        head, size = read_head(first)
        return scaled(len(head.splitlines()), head, size)

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        files = _files(path)
        dropped = check_header(str(path), list(files), asked)
        encoding = asked.source.encoding
        yield from text_batches(path, list(files), _rows(list(files.values()), encoding), asked, first_row, dropped)


def _rows(files: list[Path], encoding: str) -> Iterator[list[str]]:
    """Yield the lines together. Raises InputError: the one file has more lines than the other."""
    sides = [enumerate(read_lines(file, encoding), start=1) for file in files]
    counts = [0, 0]
    for lines in zip_longest(*sides):
        counts = [count if line is None else line[0] for count, line in zip(counts, lines, strict=True)]
        if None not in lines:
            yield [line[1].removesuffix("\n").removesuffix("\r") for line in lines]
    if counts[0] != counts[1]:
        raise InputError(
            files[1],
            f"{counts[1]:,} lines, and {files[0].name} has {counts[0]:,}",
            expected="as many lines in both: the same line of each belongs together",
            fix="align them anew; from the first missing line on all pairs are wrong",
        )


def _files(folder: Path) -> dict[str, Path]:
    """Return the two files by their columns' names, in the order of these; none if there are others."""
    inside = [path for path in folder.iterdir() if not path.name.startswith((".", "_"))]
    if len(inside) != 2 or not all(path.is_file() for path in inside):
        return {}
    endings = {ending(path) for path in inside}
    if endings == {".txt"}:
        found = {path.name.partition(".txt")[0]: path for path in inside}
    elif all(_LANGUAGE.fullmatch(one) for one in endings) and not endings & _OTHERS and len(endings) == 2:
        found = {ending(path).removeprefix("."): path for path in inside}
    else:
        return {}
    return dict(sorted(found.items())) if len(found) == 2 else {}
