"""Documents, one a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from pydantic import Field

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.values.column import Feature, Questions, StoredFeature
from graftline.values.corruption import OF_ENGLISH, OF_TEXTS, Corruption
from graftline.values.corruptions import texts
from graftline.values.facts import ColumnBatch, taken
from graftline.values.histograms import TextHistograms
from graftline.values.minhash import TextMeasure
from graftline.values.rules import Rule, between
from graftline.values.samples import ByClass, Samples, begin
from graftline.values.strings import (
    CONTROLS,
    checked,
    composed,
    folded,
    numbers,
    read_texts,
    show_text,
    string_of,
    strings,
    valid,
)


class Written(Feature):
    """What documents and sentences share."""

    min_length: int = Field(default=1, ge=1)
    max_length: int | None = Field(default=None, ge=1)

    plural: ClassVar[str] = "texts"
    near: ClassVar[str] = "min_jaccard"
    near_together: ClassVar[bool] = True
    unit: ClassVar[str]
    """What a length counts."""

    def length_rules(self, name: str) -> list[Rule]:
        low, high, unit = self.min_length, self.max_length, self.unit
        rules = [between(f"{name}.min_length", f"{name}.length", low, None, f"at least {low} {unit}")]
        if high is not None:
            rules.append(between(f"{name}.max_length", f"{name}.length", None, high, f"at most {high} {unit}"))
        return rules

    def histograms(self, name: str) -> TextHistograms:
        return TextHistograms(name)

    def same(self, values: pa.Array, cells: list[bytes]) -> list[bytes]:
        """Texts in composed form (NFC) and with single spaces: a reader cannot tell others apart."""
        plain = composed(values)
        return cells if plain.equals(values) else self.cells(plain)

    def loose(self, values: pa.Array) -> list[bytes]:
        """Without the case of letters and Unicode's variants of form, which many tokenizers take away."""
        return self.cells(folded(values))

    def measure(self, names: Sequence[str], minimum: float) -> TextMeasure:
        return TextMeasure(tuple(names), minimum)

    def near_text(self, minimum: float) -> str:
        return f"texts that share {minimum:g} of their runs of 5 characters or more"


class Text(Written):
    """Documents, one a row. Control characters are bad, but for tab, line feed and carriage return."""

    type: Literal["text"] = "text"

    min_length: int = Field(default=1, ge=1)
    """Smallest length in characters, without white space at the ends."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in characters, likewise."""

    differs_from: str | None = None
    """The column of text that a row's value may not equal, but for white space at the ends: of a translation, the text
    that it is one of, for what was never translated teaches to copy."""

    unit: ClassVar[str] = "characters"

    def arrow_type(self) -> pa.DataType:
        return pa.string()

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = strings(batch, name)
        # White space at the ends is kept, but does not make a document longer.
        facts = {
            "given": valid(array),
            "length": numbers(pc.utf8_length(pc.utf8_trim_whitespace(array))),
            "controls": numbers(pc.count_substring_regex(array, CONTROLS)),
        }
        return ColumnBatch(facts, lambda place: show_text(str(array[place].as_py())), taken(array))

    def rules(self, name: str) -> list[Rule]:
        text = "no control character but tab and line ends"
        rules = [*self.length_rules(name), between(f"{name}.characters", f"{name}.controls", 0, 0, text, shows="raw")]
        if self.differs_from is not None:
            other = f"another text than {self.differs_from} has"
            rules.append(between(f"{name}.differs_from", f"{name}.same_text", 0, 0, other, shows="raw"))
        return rules

    def check(self, name: str, contract: Any) -> None:
        other = self.differs_from
        if other is not None and (other == name or getattr(contract.columns.get(other), "type", "") != self.type):
            raise ValueError(f"columns.{name}.differs_from: '{other}' is no other column of type text")

    def facts_beside(self, name: str, columns: dict[str, ColumnBatch], features: Sequence[str]) -> dict[str, Any]:
        if self.differs_from is None:
            return {}
        every = np.ones(len(columns[name].facts["given"]), bool)
        one, other = (pc.utf8_trim_whitespace(columns[of].take(every)) for of in (name, self.differs_from))
        return {"same_text": pc.fill_null(pc.equal(one, other), False).to_numpy(zero_copy_only=False).astype(np.int64)}

    def samples(self, name: str, label: str | None, classes: tuple[Any, ...]) -> Samples:
        return TextSamples(name, classes)

    def stored(self, name: str) -> TextColumn:
        return TextColumn(name)

    def from_file(self, path: Path) -> str:
        if path.suffix.lower() != ".txt":
            super().from_file(path)
        try:
            return path.read_bytes().decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise InputError(path, "not UTF-8", fix="save the file as UTF-8") from None


@dataclass
class TextSamples(ByClass):
    """The beginnings of documents."""

    each: ClassVar[int] = 3
    most_classes: ClassVar[int] = 30

    def html(self) -> Markup:
        row, one = Markup("<tr><td>{}</td><td>{}</td></tr>\n"), Markup('<div dir="auto">{}</div>')
        rows = (
            row.format(name, Markup("").join(one.format(begin(text)) for text in kept)) for name, kept in self.rows()
        )
        return Markup('<div class="scroll"><table>\n{}</table></div>').format(Markup("").join(rows))


@dataclass(frozen=True)
class TextColumn(StoredFeature):
    """A column of strings, one document a row."""

    type: ClassVar[str] = "text"
    corruptions: ClassVar[tuple[str, ...]] = OF_TEXTS
    asked_corruptions: ClassVar[tuple[str, ...]] = OF_ENGLISH

    def corrupted(
        self, column: pa.ChunkedArray, dataset: Path, rows: np.ndarray, by: Corruption
    ) -> tuple[TextColumn, pa.Array]:
        pairs = zip(column.to_pylist(), by.draws(rows), strict=True)
        return self, pa.array([texts.spoil_text(by.name, text, draw, by.level) for text, draw in pairs], pa.string())

    def values(self, column: pa.ChunkedArray) -> list[str]:
        """Return n documents."""
        texts: list[str] = column.to_pylist()
        return texts

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Text"}

    def question(self, where: str, value: Any) -> str:
        return string_of(checked(where, value, self.name))

    def questions(self, paths: list[Path], texts: list[str]) -> Questions:
        return Questions(read_texts(paths, texts, self.name))
