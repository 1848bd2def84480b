"""Sentences, one a row: a list of words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from pydantic import Field

from graftline.raw.batches import RawBatch
from graftline.values.column import Questions, StoredFeature
from graftline.values.corruption import OF_ENGLISH, OF_TEXTS, Corruption
from graftline.values.corruptions import texts
from graftline.values.facts import ColumnBatch, taken
from graftline.values.identity import TRAIN
from graftline.values.rules import Rule, between
from graftline.values.samples import UNSORTED, Samples, begin
from graftline.values.strings import checked, count, lengths_of, lists, read_texts, show_text, valid, words_of
from graftline.values.text import Written

_WORDS = 40
"""How many words of a sentence the report shows."""


class Tokens(Written):
    """Sentences, one a row: a list of words (in CSV: words with spaces between). None holds a control character."""

    type: Literal["tokens"] = "tokens"

    min_length: int = Field(default=1, ge=1)
    """Smallest length in words."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in words."""

    unit: ClassVar[str] = "words"

    def check(self, name: str, contract: Any) -> None:
        if contract.label is not None and contract.label[1].label_type != TokensColumn.label_type:
            raise ValueError(f"columns.{contract.label[0]}: the label of a column of type tokens is of type tags")

    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.string())

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        return list_batch(lists(batch, name))

    def rules(self, name: str) -> list[Rule]:
        return [
            *self.length_rules(name),
            between(f"{name}.empty_words", f"{name}.empty", 0, 0, "no word is empty or missing"),
            between(f"{name}.characters", f"{name}.controls", 0, 0, "no control character", shows="raw"),
        ]

    def samples(self, name: str, label: str | None, classes: tuple[Any, ...]) -> Samples:
        return SentenceSamples(name, label)

    def stored(self, name: str) -> TokensColumn:
        return TokensColumn(name)


def list_batch(array: pa.Array, changes: dict[str, int] | None = None) -> ColumnBatch:
    """Return a column of lists of strings, with how long each is and how many of its strings are amiss."""
    lengths, flat, given = lengths_of(array), array.flatten(), valid(array)  # flat: without missing rows' places
    empty = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(flat)), 0), True)
    bad = pc.fill_null(pc.match_substring_regex(flat, "[\\x00-\\x1f\\x7f-\\x{9f}]"), False)
    facts = {
        "given": given,
        "length": np.where(given == 1, lengths, np.nan),
        "empty": count(empty.to_numpy(zero_copy_only=False), lengths),
        "controls": count(bad.to_numpy(zero_copy_only=False), lengths),
    }
    return ColumnBatch(facts, shown_words(array), taken(array), changes or {})


def shown_words(array: pa.Array) -> Any:
    """Return the function that says how a raw list at a position is shown."""
    return lambda position: show_text(" ".join(str(word) for word in array[position].as_py() or ()))


@dataclass
class SentenceSamples(Samples):
    """The first sentences of train, each word with its tag (empty without tags)."""

    name: str
    tags: str | None
    sentences: list[list[tuple[str, str]]] = field(default_factory=list)

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        for place in np.flatnonzero(splits == TRAIN)[: UNSORTED - len(self.sentences)]:
            sentence = columns[self.name][int(place)].as_py()[:_WORDS]
            tags = [""] * len(sentence)
            if self.tags is not None:
                tags = columns[self.tags][int(place)].as_py()[:_WORDS]
            self.sentences.append(list(zip(map(begin, sentence), tags, strict=True)))

    def html(self) -> Markup:
        one = Markup("<span>{}<i>{}</i></span> ")
        lines = (Markup("").join(one.format(word, tag) for word, tag in line) for line in self.sentences)
        return Markup("\n").join(Markup('<p class="tagged" dir="auto">{}</p>').format(line) for line in lines)


@dataclass(frozen=True)
class TokensColumn(StoredFeature):
    """A column of lists of words, one sentence a row; the label is a list of tags, one a word."""

    type: ClassVar[str] = "tokens"
    label_type: ClassVar[str] = "tags"
    corruptions: ClassVar[tuple[str, ...]] = tuple(name for name in OF_TEXTS if name in texts.WORD_BY_WORD)
    """Each word keeps its tag, so none is lost or moved."""
    asked_corruptions: ClassVar[tuple[str, ...]] = OF_ENGLISH

    def corrupted(
        self, column: pa.ChunkedArray, dataset: Path, rows: np.ndarray, by: Corruption
    ) -> tuple[TokensColumn, pa.Array]:
        pairs = zip(column.to_pylist(), by.draws(rows), strict=True)
        spoiled = [texts.spoil_words(by.name, words, draw, by.level) for words, draw in pairs]
        return self, pa.array(spoiled, pa.list_(pa.string()))

    def values(self, column: pa.ChunkedArray) -> list[list[str]]:
        """Return n sentences."""
        words: list[list[str]] = column.to_pylist()
        return words

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Text", "isArray": True, "arrayShape": "-1"}

    def question(self, where: str, value: Any) -> list[str]:
        return words_of(checked(where, value, self.name))

    def questions(self, paths: list[Path], texts: list[str]) -> Questions:
        return Questions(read_texts(paths, texts, self.name))
