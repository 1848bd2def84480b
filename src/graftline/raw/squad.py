"""SQuAD's JSON: articles of paragraphs with questions and their answers, a question a row.

P. Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text", EMNLP 2016; version 2.0, with
questions that have no answer: "Know what you don't know", ACL 2018. Its `plausible_answers` are not answers, and are
passed over. A question without the key `answers` has a missing value there, one with an empty list has no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.faults import amiss, half_a_pair, load_whole
from graftline.raw.lines import read_head
from graftline.raw.reader import Asked, Reader, Source, check_columns

_ANSWERS = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "title", "question", "context")] + [("answers", _ANSWERS)])
"""As the data set `squad` of Hugging Face names them."""
MOST_BYTES = 128 << 20
"""Largest file: it is in memory whole. SQuAD 2.0 has 42 MB."""
_FORM = "SQuAD's JSON"


class Squad(Reader):
    format: ClassVar[str] = "squad"
    suffixes: ClassVar[tuple[str, ...]] = ()
    """None: of files that end in .json only those with paragraphs are of this format."""

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix == ".json" and b'"paragraphs"' in read_head(path)[0]

    def schema(self, path: Path, source: Source) -> pa.Schema:
        return SCHEMA

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        return sum(1 for _ in _rows(path, source.encoding)), True

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        dropped = check_columns(path, SCHEMA.names, asked)
        rows: list[dict[str, Any]] = []
        size = 0
        for row in _rows(path, asked.source.encoding):
            rows.append(row)
            size += len(row["context"])
            if size > limits.TEXT_BYTES or len(rows) == limits.MAX_ROWS:
                yield _batch(path, asked, first_row, rows, dropped)
                first_row += len(rows)
                rows, size = [], 0
        if rows:
            yield _batch(path, asked, first_row, rows, dropped)


def _batch(path: Path, asked: Asked, first_row: int, rows: list[dict[str, Any]], dropped: tuple[str, ...]) -> RawBatch:
    columns = {}
    for name, found_as in zip(asked.columns, asked.names, strict=True):
        columns[name] = pa.array([row[found_as] for row in rows], SCHEMA.field(found_as).type)
    return RawBatch(path, first_row, columns, False, np.full(len(rows), len(columns), np.int64), dropped)


def _rows(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    content, _ = load_whole(path, _FORM, MOST_BYTES, "articles", encoding)
    for number, article in enumerate(_list(content, "data", f"{path}: ")):
        where = f"{path}: data[{number}]"
        for place, paragraph in enumerate(_list(article, "paragraphs", f"{where}.")):
            inside = f"{where}.paragraphs[{place}]"
            for at, question in enumerate(_list(paragraph, "qas", f"{inside}.")):
                about = f"{inside}.qas[{at}]"
                yield {
                    "id": _text(question, "id", about, optional=True),
                    "title": _text(article, "title", where, optional=True),
                    "question": _text(question, "question", about),
                    "context": _text(paragraph, "context", inside),
                    "answers": _answers(question, about),
                }


def _answers(question: dict[str, Any], where: str) -> dict[str, list[Any]] | None:
    """Return the answers as they stand; whether they stand where they say is the contract's to judge."""
    if "answers" not in question:
        return None
    found = _list(question, "answers", f"{where}.")
    texts = [_text(one, "text", f"{where}.answers[{at}]") for at, one in enumerate(found)]
    starts = [one.get("answer_start") for one in found]
    for at, start in enumerate(starts):
        if not isinstance(start, int) or isinstance(start, bool) or abs(start) >= 2**63:
            raise amiss(f"{where}.answers[{at}].answer_start", start, "a whole number", _FORM)
    return {"text": texts, "answer_start": starts}


def _list(found: Any, key: str, before: str) -> list[Any]:
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, list):
        raise amiss(before + key, value, "a list", _FORM)
    return value


def _text(found: Any, key: str, where: str, *, optional: bool = False) -> str | None:
    value = found.get(key) if isinstance(found, dict) else None
    if isinstance(value, int) and key == "id":
        return str(value)
    if not isinstance(value, str) and not (optional and value is None):
        raise amiss(f"{where}.{key}", value, "a text", _FORM)
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise half_a_pair(f"{where}.{key}") from None
    return value
