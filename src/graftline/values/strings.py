"""What the columns of text share: raw values as strings or lists of them, counts, and texts in files to ask about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.errors import InputError, brief
from graftline.raw.batches import RawBatch
from graftline.values.column import Question
from graftline.values.facts import shorten, wrong_type
from graftline.values.scalar import is_string

CONTROLS = "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x{9f}]"
"""Unicode's control characters (category Cc) but tab, line feed and carriage return, as RE2 writes them."""
Check = Callable[[str, Any, str], str | list[str]]
"""What makes a value in memory of one in a file: by the place's name, the value and the column. Raises InputError."""
SUFFIXES = (".txt", ".jsonl", ".parquet")
_SHOWN_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def show_text(text: str) -> str:
    """Return the beginning of a text with its control characters as escapes."""
    return _SHOWN_CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", shorten(text))


def strings(batch: RawBatch, name: str) -> pa.Array:
    """Return the column as strings. Raises InputError if its type is no text."""
    array = batch.columns[name]
    if not (is_string(array.type) or pa.types.is_null(array.type)):
        raise wrong_type(batch, name, array.type, "text (string)")
    return array.cast(pa.string())


def lists(batch: RawBatch, name: str) -> pa.Array:
    """Return the column as lists of strings; a cell of CSV is split at white space. Raises InputError."""
    array = batch.columns[name]
    kind = array.type
    if batch.is_text:
        return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(array))
    of = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if pa.types.is_null(of) or (of != kind and is_string(of)):
        return array.cast(pa.list_(pa.string()))
    raise wrong_type(batch, name, kind, "a list of words (list<string>)")


def composed(array: pa.Array) -> pa.Array:
    """Return strings, or lists of them, in Unicode's composed form (NFC), with single spaces between words."""
    return _each(array, lambda texts: _spaced(pc.utf8_normalize(texts, form="NFC")))


def folded(array: pa.Array) -> pa.Array:
    """Return strings, or lists of them, without case and variants of form (NFKC), likewise."""
    return _each(array, lambda texts: _spaced(pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))))


def _each(array: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    if not pa.types.is_list(array.type):
        return change(array)
    lengths = pc.list_value_length(array)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths_of(array))]), pa.int32())
    return pa.ListArray.from_arrays(offsets, change(array.flatten()), mask=lengths.is_null())


def _spaced(texts: pa.Array) -> pa.Array:
    return pc.binary_join(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)), " ")


def valid(array: pa.Array) -> np.ndarray:
    """Return (n,) float64: 1 where a value is given, else NaN."""
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), 1.0, np.nan)


def numbers(array: pa.Array) -> np.ndarray:
    """Return (n,) float64, NaN where null."""
    found: np.ndarray = array.to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def lengths_of(array: pa.Array) -> np.ndarray:
    """Return (n,) int64 lengths of lists, 0 where null."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return np.asarray(lengths, np.int64)


def count(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return (n,) int64: how many are true in each run of `mask`; run i is lengths[i] long."""
    ends = np.cumsum(lengths)
    total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    counts: np.ndarray = total[ends] - total[ends - lengths]
    return counts


def read_texts(paths: list[Path], texts: list[str], column: str, check: Check | None = None) -> list[Question]:
    """Return the texts (strings, or words as the file has them) of files, then `texts`.

    Args:
        paths: files with a text a line, JSON Lines or Parquet, or folders of them.
        texts: from the command line.
        column: the key or column that holds the text in JSON Lines and Parquet.
        check: what makes a value in memory of one in a file; `checked` by default.

    Raises:
        InputError: a file is not there or not readable, or there is no text at all.
    """
    check = check or checked
    given = [one for path in paths for one in _read(path, column)]
    given += [Question(f"--text {number}", text) for number, text in enumerate(texts, start=1)]
    found = [Question(one.name, check(one.name, one.value, column)) for one in given]
    if not found:
        where = ", ".join(map(str, paths)) or "the command line"
        raise InputError(where, "no documents", expected=f"{', '.join(SUFFIXES)} files, or --text")
    for question in found:
        if not words_of(question.value):
            raise InputError(question.name, "an empty document", fix="leave it out")
    return found


def words_of(text: str | list[str]) -> list[str]:
    """Return the words; of a string what white space divides."""
    return text.split() if isinstance(text, str) else text


def string_of(text: str | list[str]) -> str:
    """Return the text; of words with blanks between them."""
    return text if isinstance(text, str) else " ".join(text)


def _read(path: Path, column: str) -> Iterator[Question]:
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES):
            yield from _read(inner, column)
    elif not path.exists():
        raise InputError(path, "no such file or folder", fix="check the path, or give the text by --text")
    elif path.suffix.lower() == ".txt":
        yield from (Question(name, line) for name, line in _lines(path))
    elif path.suffix.lower() == ".jsonl":
        yield from (Question(name, _value(name, line, column)) for name, line in _lines(path))
    elif path.suffix.lower() == ".parquet":
        yield from _read_parquet(path, column)
    else:
        raise InputError(path, f"a file of type '{path.suffix}'", expected=f"a {', '.join(SUFFIXES)} file, or a folder")


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


def _value(name: str, line: str, column: str) -> Any:
    """Return what a line of JSON holds, as it is or under the key `column`."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(name, f"not JSON ({error})", expected=_expected(column)) from None
    if isinstance(value, dict):
        value = value.get(column)
    return value


def _read_parquet(path: Path, column: str) -> Iterator[Question]:
    try:
        values = pq.read_table(path, columns=[column])[column].to_pylist()
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise InputError(path, brief(error), expected=f"Parquet with a column '{column}'") from None
    for row, value in enumerate(values):
        yield Question(f"{path}#{row}", value)


def checked(name: str, value: Any, column: str) -> str | list[str]:
    """Return a text or its words, as a file has them. Raises InputError for anything else."""
    words = isinstance(value, list) and all(isinstance(word, str) and word for word in value)
    if not isinstance(value, str) and not words:
        raise InputError(name, f"{str(value)[:60]!r} is no text", expected=_expected(column))
    return value  # type: ignore[no-any-return]


def _expected(column: str) -> str:
    return f'a string or a list of words, or an object with one under "{column}"'
