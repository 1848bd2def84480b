"""Transcripts: what is said in the clip of the same row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from graftline.raw.batches import RawBatch
from graftline.values.column import Label, Role, StoredLabel
from graftline.values.facts import ColumnBatch, taken
from graftline.values.histograms import TextHistograms
from graftline.values.rules import Rule, between
from graftline.values.strings import CONTROLS, numbers, show_text, strings, valid

_HEARD = "audio"
"""The type of the column that a transcript is of."""


class Transcript(Label):
    """What is said in the clip of the same row, as text. White space is made single, and taken off both ends."""

    type: Literal["transcript"] = "transcript"

    role: Role = "label"
    """What is said is the label."""

    silence: str | None = None
    """The word that says that nothing is said, where clips without speech are to be learned from; without it an empty
    transcript goes to the quarantine. An empty cell of CSV is a missing value, and its row learns nothing."""

    max_length: int = Field(default=10_000, ge=1)
    """Largest length in characters."""

    max_rate: float = Field(default=40.0, gt=0)
    """Most characters a second of the clip: nobody talks faster than about 30, and a transcript of more is another
    clip's."""

    label_type: ClassVar[str] = "transcript"
    one_class: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False
    counted: ClassVar[str] = "transcripts"
    changes: ClassVar = {
        "spaced": "white space was made single, and taken off both ends",
        "silent": "the word for silence stands for nothing that is said",
    }

    def check(self, name: str, contract: Any) -> None:
        heard = [contract.columns[of].type for of in contract.features]
        if self.role != "label" or heard != [_HEARD]:
            raise ValueError(f"columns.{name}: a transcript is the label of one column of type {_HEARD}")

    def arrow_type(self) -> pa.DataType:
        return pa.string()

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        found = strings(batch, name)
        spaced = pc.binary_join(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(found)), " ")
        silent = pc.fill_null(pc.equal(spaced, self.silence), False)
        texts = pc.if_else(silent, "", spaced)
        lengths = numbers(pc.utf8_length(texts))
        facts = {
            "given": valid(found),
            "empty": pc.fill_null(pc.equal(spaced, ""), False).to_numpy(zero_copy_only=False).astype(np.int64),
            "length": lengths,
            "controls": numbers(pc.count_substring_regex(found, CONTROLS)),
        }
        words = silent.to_numpy(zero_copy_only=False)
        moved = pc.fill_null(pc.not_equal(found, spaced), False).to_numpy(zero_copy_only=False)
        changes = {word: count for word, of in (("spaced", moved), ("silent", words)) if (count := int(of.sum()))}
        return ColumnBatch(facts, lambda place: show_text(str(found[place].as_py())), taken(texts), changes)

    def facts_beside(self, name: str, columns: dict[str, ColumnBatch], features: Sequence[str]) -> dict[str, Any]:
        seconds = columns[features[0]].facts["seconds"]
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"rate": np.where(seconds > 0, columns[name].facts["length"] / seconds, np.nan)}

    def rules(self, name: str) -> list[Rule]:
        nothing = "not empty" if self.silence is None else f"not empty; `{self.silence}` where nothing is said"
        plain = "no control character but tab and line ends"
        length, rate = f"at most {self.max_length} characters", f"at most {self.max_rate:g} characters a second"
        return [
            between(f"{name}.empty", f"{name}.empty", 0, 0, nothing, shows="raw"),
            between(f"{name}.max_length", f"{name}.length", None, self.max_length, length),
            between(f"{name}.characters", f"{name}.controls", 0, 0, plain, shows="raw"),
            between(f"{name}.max_rate", f"{name}.rate", None, self.max_rate, rate),
        ]

    def histograms(self, name: str) -> TranscriptHistograms:
        return TranscriptHistograms(name)


class TranscriptHistograms(TextHistograms):
    """Of the transcripts that are given."""

    def add(self, values: pa.Array) -> None:
        super().add(values.drop_null())


@dataclass(frozen=True)
class TranscriptLabel(StoredLabel):
    """What is said in a row's clip; the empty text where nothing is."""

    type: ClassVar[str] = "transcript"

    def values(self, column: pa.ChunkedArray) -> list[str]:
        """Return n texts. Raises ValueError if one is missing."""
        texts: list[str] = column.to_pylist()
        if any(text is None for text in texts):
            raise ValueError(f"column '{self.name}' lacks a transcript")
        return texts

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Text"}

    def invented(self, features: pa.Array) -> pa.Array:
        return pa.array(["some words"] * len(features))
