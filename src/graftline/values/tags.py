"""Lists of classes: the tags of a sentence, one a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.raw.batches import RawBatch
from graftline.values.category import check_classes, croissant_type
from graftline.values.column import Balance, OfClasses, Role, StoredLabel
from graftline.values.facts import ColumnBatch, taken
from graftline.values.histograms import ClassHistogram
from graftline.values.rules import Rule, between, listed
from graftline.values.strings import count, lengths_of, lists, valid
from graftline.values.words import TokensColumn, shown_words


class ClassLists(OfClasses):
    """A column of lists of classes (in CSV: with spaces between)."""

    classes: tuple[str, ...]
    """The only ones allowed, in the order of class indices."""

    balance: Balance = Balance()

    counted: ClassVar[str] = "tags"

    def check_label(self, name: str) -> None:
        check_classes(name, self.classes)

    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.string())

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = lists(batch, name)
        lengths, flat, given = (lengths_of(array), array.flatten(), valid(array))  # flat: without missing rows' places
        known = pc.is_in(flat, pa.array(self.classes, pa.string()))
        facts = {
            "given": given,
            "length": np.where(given == 1, lengths, np.nan),
            "unknown": count(~known.to_numpy(zero_copy_only=False), lengths),
        }
        return ColumnBatch(facts, shown_words(array), taken(array))

    def rules(self, name: str) -> list[Rule]:
        text = f"every tag is one of {listed(self.classes)}"
        return [between(f"{name}.classes", f"{name}.unknown", 0, 0, text, shows="raw")]

    def members(self, values: pa.Array, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return pc.index_in(values.flatten(), pa.array(self.classes, pa.string())).to_numpy(), lengths_of(values)

    def histograms(self, name: str) -> ClassHistogram:
        return ClassHistogram(name, self.classes)


class Tags(ClassLists):
    """The label of a sentence: a list of tags (in CSV: with spaces between), as many as it has words."""

    type: Literal["tags"] = "tags"

    role: Role = "label"
    """Tags are the label."""

    classes: tuple[str, ...]
    """The only tags allowed, in the order of class indices."""

    balance: Balance = Balance()
    """Of all tags, not of sentences."""

    label_type: ClassVar[str] = "tags"

    def check(self, name: str, contract: Any) -> None:
        if self.role != "label" or contract.feature[1].type != TokensColumn.type:
            raise ValueError(f"columns.{name}: tags are the label of a column of type tokens")

    def facts_beside(self, name: str, columns: dict[str, ColumnBatch], features: Sequence[str]) -> dict[str, Any]:
        more = columns[name].facts["length"] - columns[features[0]].facts["length"]  # NaN where either is missing
        return {"more_than_words": more}

    def rules(self, name: str) -> list[Rule]:
        return [
            *super().rules(name),
            between(f"{name}.length", f"{name}.more_than_words", 0, 0, "as many tags as words"),
        ]


@dataclass(frozen=True)
class StoredLists(StoredLabel):
    """A list of classes a row."""

    def croissant(self) -> dict[str, Any]:
        return {"dataType": croissant_type(self.classes), "isArray": True, "arrayShape": "-1"}


@dataclass(frozen=True)
class TagLabel(StoredLists):
    """A list of tags, one a word."""

    type: ClassVar[str] = "tags"

    def values(self, column: pa.ChunkedArray) -> list[np.ndarray]:
        """Return n arrays, (number of words,), int64 class indices."""
        index = {tag: number for number, tag in enumerate(self.classes)}
        return [np.array([index[tag] for tag in row], dtype=np.int64) for row in column.to_pylist()]

    def invented(self, features: pa.Array) -> pa.Array:
        classes = self.classes
        return pa.array([[classes[i % len(classes)] for i in range(len(row))] for row in features.to_pylist()])
