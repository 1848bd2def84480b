"""Texts that a command is asked about: files with a document a line, JSON Lines, Parquet, or the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline.errors import InputError

SUFFIXES = (".txt", ".jsonl", ".parquet")
TEXT_HELP = "a text to ask about, instead of files; may be given several times"
Texts = Annotated[list[str] | None, typer.Option("--text", help=TEXT_HELP)]


@dataclass(frozen=True)
class Document:
    """One text and its name in the answer."""

    name: str
    text: str | list[str]
    """A string, or words as the file has them."""

    @property
    def words(self) -> list[str]:
        """The words; of a string what white space divides."""
        return self.text.split() if isinstance(self.text, str) else self.text

    @property
    def string(self) -> str:
        return self.text if isinstance(self.text, str) else " ".join(self.text)


def read_documents(paths: list[Path], texts: list[str], column: str) -> list[Document]:
    """Return all documents of the files, then `texts`.

    Args:
        paths: files, or folders of them.
        texts: from the command line.
        column: the key or column that holds the document in JSON Lines and Parquet.

    Raises:
        InputError: a file is not there or not readable, or there is no document at all.
    """
    found = [document for path in paths for document in _read(path, column)]
    found += [Document(f"--text {number}", text) for number, text in enumerate(texts, start=1)]
    if not found:
        where = ", ".join(map(str, paths)) or "the command line"
        raise InputError(where, "no documents", expected=f"{', '.join(SUFFIXES)} files, or --text")
    for document in found:
        if not document.words:
            raise InputError(document.name, "an empty document", fix="leave it out")
    return found


def _read(path: Path, column: str) -> Iterator[Document]:
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES):
            yield from _read(inner, column)
    elif not path.exists():
        raise InputError(path, "no such file or folder", fix="check the path, or give the text by --text")
    elif path.suffix.lower() == ".txt":
        yield from (Document(name, line) for name, line in _lines(path))
    elif path.suffix.lower() == ".jsonl":
        yield from (Document(name, _value(name, line, column)) for name, line in _lines(path))
    elif path.suffix.lower() == ".parquet":
        yield from _read_parquet(path, column)
    else:
        raise InputError(
            path, f"a file of type '{path.suffix}'", expected=f"a {', '.join(SUFFIXES)} file, or a folder"
        )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not empty and their names, `file:number` from 1."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode().strip()
            except UnicodeDecodeError as error:
                found = f"byte 0x{line[error.start]:02x} at {error.start} is no UTF-8"
                raise InputError(f"{path}:{number}", found, fix="save the file as UTF-8") from None
            if text:
                yield f"{path}:{number}", text


def _value(name: str, line: str, column: str) -> str | list[str]:
    """Return what a line of JSON holds: the string or the words, as they are or under the key `column`."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(name, f"not JSON ({error})", expected=_expected(column)) from None
    if isinstance(value, dict):
        value = value.get(column)
    return _checked(name, value, column)


def _read_parquet(path: Path, column: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values = pq.read_table(path, columns=[column])[column].to_pylist()
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, reason, expected=f"Parquet with a column '{column}'") from None
    for row, value in enumerate(values):
        yield Document(f"{path}#{row}", _checked(f"{path}#{row}", value, column))


def _checked(name: str, value: Any, column: str) -> str | list[str]:
    words = isinstance(value, list) and all(isinstance(word, str) and word for word in value)
    if not isinstance(value, str) and not words:
        raise InputError(name, f"{str(value)[:60]!r} is no text", expected=_expected(column))
    return value  # type: ignore[no-any-return]


def _expected(column: str) -> str:
    return f'a string or a list of words, or an object with one under "{column}"'
