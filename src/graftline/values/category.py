"""Words of which each stands for a class, an id or a note; and classes as labels, be they words or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, StrictFloat, StrictInt, StrictStr

from graftline.values.column import Balance, Label, StoredLabel
from graftline.values.histograms import ClassHistogram, Histograms
from graftline.values.identity import SPLITS
from graftline.values.rules import Rule, among, between
from graftline.values.scalar import Scalar, is_number, is_string
from graftline.values.spelling import Spelled, mapped, trimmed

Word = StrictStr | StrictInt | StrictFloat
"""What a value is found as: `true` and `null` in quotes, for YAML reads them as something else."""


class Category(Scalar, Label):
    """A column that may be of some classes: one a row."""

    label_type: ClassVar[str] = "category"

    classes: tuple[Any, ...] | None = None

    balance: Balance = Balance()
    """Of a label."""

    map: dict[Any, Any] = Field(default_factory=dict)
    """What words of the raw data stand for, such as `{ham: 0, spam: 1}`; null is a missing value. Others stay."""

    trim: bool = False
    """Whether white space around a value is taken off."""

    @property
    def label_classes(self) -> tuple[Any, ...]:
        return self.classes or ()

    @property
    def bounded(self) -> bool:
        return self.classes is not None or any(value is not None for value in self.map.values())

    @property
    def bounds(self) -> Balance:
        return self.balance

    def check_label(self, name: str) -> None:
        check_classes(name, self.classes)

    def spelled(self, values: pa.Array, *, is_text: bool) -> Spelled:
        found = Spelled(values, is_text, {})
        if self.trim and is_string(values.type):
            found = trimmed(values, is_text=is_text)
        if self.map and not pa.types.is_null(values.type) and _is_plain(values.type):
            again = mapped(found.values, self.map)
            found = Spelled(again.values, again.is_text, {**found.changes, **again.changes})
        return found

    def check(self, name: str, contract: Any) -> None:
        super().check(name, contract)
        if self.classes is not None and (
            other := [value for value in self.map.values() if value not in (None, *self.classes)]
        ):
            raise ValueError(f"columns.{name}.map: {other[0]!r} is none of the classes")

    def ids(self, values: pa.Array) -> np.ndarray:
        if self.classes is None:
            return super().ids(values)
        found = pc.index_in(values, pa.array(self.classes, values.type))
        indices: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return indices

    def guesses(self) -> list[Any] | None:
        return [*(self.classes or ()), *([None] if self.nullable else [])]

    def histograms(self, name: str) -> Histograms | None:
        return None if self.classes is None else ClassHistogram(name, self.classes)


class String(Category):
    """Text."""

    type: Literal["string"] = "string"

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in characters."""

    classes: tuple[str, ...] | None = None
    """The only values allowed; of a label, in the order of class indices."""

    arrow: ClassVar[pa.DataType] = pa.string()
    words: ClassVar[bool] = True
    identifies: ClassVar[bool] = True

    map: dict[Word, str | None] = Field(default_factory=dict)

    def fits(self, kind: pa.DataType, *, is_text: bool) -> bool:
        return is_string(kind) or bool(pa.types.is_boolean(kind))

    def parse(self, value: Any) -> str:
        return str(value)

    @property
    def _allowed(self) -> tuple[str, ...] | None:
        return self.classes or (SPLITS if self.role == "split" else None)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if self.max_length is not None:
            facts["length"] = pc.utf8_length(typed).to_numpy(zero_copy_only=False)
        if self._allowed is not None:
            facts["value"] = np.array(typed.to_pylist(), object)
        return facts

    def rules(self, name: str) -> list[Rule]:
        rules = super().rules(name)
        if self.max_length is not None:
            text = f"at most {self.max_length} characters"
            rules.append(between(f"{name}.max_length", f"{name}.length", None, self.max_length, text, shows="raw"))
        if self._allowed is not None:
            rules.append(among(f"{name}.classes", f"{name}.value", self._allowed))
        return rules


def _is_plain(kind: pa.DataType) -> bool:
    return is_string(kind) or is_number(kind) or bool(pa.types.is_boolean(kind))


def check_classes(name: str, classes: tuple[Any, ...] | None) -> None:
    """Raise ValueError unless a label's classes are at least two, each once."""
    if classes is None or len(classes) < 2:
        raise ValueError(f"columns.{name}: a label is an integer, string or tags with at least two classes")
    if len(set(classes)) != len(classes):
        raise ValueError(f"columns.{name}.classes: a class stands twice")


@dataclass(frozen=True)
class ClassLabel(StoredLabel):
    """One class a row."""

    type: ClassVar[str] = "category"
    one_class: ClassVar[bool] = True

    def values(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return (n,) int64 class indices."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[name] for name in column.to_pylist()], dtype=np.int64)

    def croissant(self) -> dict[str, Any]:
        return {"dataType": croissant_type(self.classes), "references": {"field": {"@id": "classes/name"}}}

    def invented(self, features: pa.Array) -> pa.Array:
        return pa.array([self.classes[i % len(self.classes)] for i in range(len(features))])


def croissant_type(classes: tuple[Any, ...]) -> str:
    """Return the type of the classes' names."""
    return "sc:Integer" if isinstance((classes or ("",))[0], int) else "sc:Text"
