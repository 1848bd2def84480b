"""Spans: the answer to a question is a stretch of a text in the same row, one of several, or there is none.

Places count characters (Unicode code points) from 0, as SQuAD's `answer_start` does (Rajpurkar et al., 2016).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from graftline.raw.batches import RawBatch
from graftline.values.column import Label, Role, StoredLabel
from graftline.values.facts import ColumnBatch, of_faults, shorten, wrong_type
from graftline.values.histograms import Histograms
from graftline.values.rules import Rule, without
from graftline.values.scalar import is_string
from graftline.values.strings import show_text, strings
from graftline.values.text import TextColumn

STARTS = ("start", "answer_start")
"""Names that the field with the places may have in the raw data."""
ARROW = pa.struct([("text", pa.list_(pa.string())), ("start", pa.list_(pa.int64()))])
_FAULTS = {
    "form": "as many starts as texts, and nothing else",
    "text": "no answer is empty; where there is none, its list is empty",
    "inside": "an answer lies inside the text",
    "place": "an answer stands where it starts",
    "found": "an answer without a start stands in the text once",
}
"""What is wrong with an answer, by its rule; a row breaks the first one only."""


class Answer(NamedTuple):
    """A stretch of a text."""

    text: str
    start: int
    """Characters before it."""


def holds_answers(kind: pa.DataType) -> bool:
    """Return whether values of the Arrow type are answers that say where they start."""
    return _start_of(kind) is not None


def _start_of(kind: pa.DataType) -> str | None:
    """Return the name of the field with the places; None of a type that has none beside `text`."""
    fields = {field.name for field in kind} if pa.types.is_struct(kind) else set()
    return next((word for word in STARTS if word in fields), None) if "text" in fields else None


def plain_answers(values: pa.Array) -> list[list[str]]:
    """Return the texts of raw answers of any form; none of values that are missing or no answers."""
    found = []
    for value in values.to_pylist():
        texts = value.get("text") if isinstance(value, dict) else value
        texts = texts if isinstance(texts, list) else [texts]
        found.append([text for text in texts if isinstance(text, str) and text.strip()])
    return found


class Span(Label):
    """The answer to a question: a stretch of another column's text, several that are right, or none.

    Raw values are objects with `text` and `start` (or `answer_start`), a list of each or one of each; empty lists are
    no answer. Answers without a start, such as in CSV, are looked for in the text.
    """

    type: Literal["span"] = "span"

    role: Role = "label"
    """The answer is the label."""

    of: str = Field(min_length=1)
    """The column of type text that answers stand in: the last one that a model sees."""

    locate: Literal["once", "first"] = "once"
    """Of an answer without a start: the place where it stands, if it stands there once, or the first of several."""

    absent: str | None = None
    """The word that says that there is no answer, where an answer is a text without a start. An empty cell of CSV is a
    missing value, and its row learns nothing."""

    label_type: ClassVar[str] = "span"
    one_class: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False
    counted: ClassVar[str] = "answers"
    changes: ClassVar = {
        "located": "answers without a start were found in the text",
        "first_of_several": "of those, answers that stand there several times: the first place was taken",
    }

    def check(self, name: str, contract: Any) -> None:
        if self.role != "label":
            raise ValueError(f"columns.{name}: a span is the label of a column of type text")
        texts = [of for of in contract.features if contract.columns[of].type == TextColumn.type]
        if len(texts) < 2 or texts[-1] != self.of or contract.features[-1] != self.of:
            raise ValueError(
                f"columns.{name}.of: '{self.of}' is not the last of two columns of type text with the role feature; "
                "the text that answers stand in comes after the question"
            )

    def arrow_type(self) -> pa.DataType:
        return ARROW

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = batch.columns[name]
        reads = self._reader(batch, name, array.type)
        # A reader that was asked for the answers alone has no texts: answers are counted then, and not judged.
        texts = strings(batch, self.of).to_pylist() if self.of in batch.columns else [None] * batch.rows
        found = [
            _Read() if value is None else reads(value, text)
            for value, text in zip(array.to_pylist(), texts, strict=True)
        ]
        given = array.is_valid().to_numpy(zero_copy_only=False)
        facts = of_faults([one.fault for one in found], given, _FAULTS)

        def take(mask: np.ndarray) -> pa.Array:
            chosen = [(found[place].answers, given[place]) for place in np.flatnonzero(mask)]
            return pa.array([_stored(answers) if there else None for answers, there in chosen], ARROW)

        counts = ((word, sum(getattr(one, word) for one in found)) for word in self.changes)
        changes = {word: count for word, count in counts if count}
        return ColumnBatch(facts, lambda place: show_text(str(array[place].as_py())), take, changes)

    def _reader(self, batch: RawBatch, name: str, kind: pa.DataType) -> Callable[[Any, str | None], _Read]:
        """Return the function that reads a raw value beside its text. Raises InputError for a type that holds none."""
        if (starts := _start_of(kind)) is not None:
            return lambda value, text: _with_starts(value["text"], value[starts], text)
        if is_string(kind) or pa.types.is_null(kind):
            return lambda value, text: self._without([] if value == self.absent else [value], text)
        if pa.types.is_list(kind) and (is_string(kind.value_type) or pa.types.is_null(kind.value_type)):
            return lambda value, text: self._without(
                [] if self.absent is not None and value == [self.absent] else value, text
            )
        raise wrong_type(batch, name, kind, "objects with text and start, or text")

    def _without(self, words: list[str | None], text: str | None) -> _Read:
        """Read answers without a start."""
        answers, several = [], 0
        for word in words:
            if not (word or "").strip():
                return _Read(fault=("text", repr(word)))
            assert word is not None
            start = -1 if text is None else text.find(word)
            if text is not None and start < 0:
                return _Read(fault=("found", f"{shorten(word)!r} does not stand in it"))
            if text is not None and (again := text.count(word)) > 1:
                if self.locate == "once":
                    return _Read(fault=("found", f"{shorten(word)!r} stands in it {again} times"))
                several += 1
            answers.append(Answer(word, start))
        return _Read(answers, located=len(answers), first_of_several=several)

    def rules(self, name: str) -> list[Rule]:
        return without(name, _FAULTS)

    def cells(self, values: pa.Array) -> list[bytes]:
        """Return 0 for null; else 1 and the answers with their places, in JSON."""
        rows = values.to_pylist()
        return [b"\0" if row is None else b"\1" + json.dumps([row["text"], row["start"]]).encode() for row in rows]

    def histograms(self, name: str) -> Histograms:
        return SpanHistograms(name)


@dataclass(frozen=True)
class _Read:
    """A raw value as it was read."""

    answers: list[Answer] | tuple[()] = ()
    fault: tuple[str, str] | None = None
    """The rule that it breaks, and what was found."""
    located: int = 0
    first_of_several: int = 0


def _with_starts(words: Any, starts: Any, text: str | None) -> _Read:
    """Read answers that say where they stand."""
    words, starts = (
        value if isinstance(value, list) else [] if value is None else [value] for value in (words, starts)
    )
    whole = all(isinstance(start, int) and not isinstance(start, bool) for start in starts)
    if len(words) != len(starts) or not whole or not all(isinstance(word, str) for word in words):
        return _Read(fault=("form", f"{len(words)} texts, starts {starts}"))
    for word, start in zip(words, starts, strict=True):
        if not word.strip():
            return _Read(fault=("text", repr(word)))
        if text is None:
            continue
        if start < 0 or start + len(word) > len(text):
            return _Read(fault=("inside", f"characters {start} to {start + len(word)} of {len(text)}"))
        if text[start : start + len(word)] != word:
            stands = shorten(text[start : start + len(word)])
            return _Read(fault=("place", f"at {start} stands {stands!r}, not {shorten(word)!r}"))
    return _Read([Answer(word, start) for word, start in zip(words, starts, strict=True)])


def _stored(answers: list[Answer] | tuple[()]) -> dict[str, list[Any]]:
    return {"text": [answer.text for answer in answers], "start": [answer.start for answer in answers]}


class SpanHistograms(Histograms):
    """The length of the first answer in characters; 0 where there is none."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = f"{name}.characters"
        self.lengths(self._name)

    def add(self, values: pa.Array) -> None:
        rows = values.drop_null().to_pylist()
        self.count(self._name, np.array([len(row["text"][0]) if row["text"] else 0 for row in rows], np.int64))


@dataclass(frozen=True)
class SpanLabel(StoredLabel):
    """The answers of a row: stretches of the last text that a model sees."""

    type: ClassVar[str] = "span"

    def values(self, column: pa.ChunkedArray) -> list[list[Answer]]:
        """Return each row's right answers; none where there is no answer."""
        return [list(map(Answer, row["text"], row["start"])) for row in column.to_pylist()]

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Text", "isArray": True, "arrayShape": "-1"}

    def invented(self, features: pa.Array) -> pa.Array:
        return pa.array([_stored(())] * len(features), ARROW)
