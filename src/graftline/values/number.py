"""Numbers: whole ones, which may be classes, and any."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from graftline.values.category import Category, Word
from graftline.values.column import Label, StoredLabel
from graftline.values.histograms import Histograms, NumberHistogram
from graftline.values.rules import Rule, among, between
from graftline.values.scalar import Scalar

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Integer(Category):
    """Whole numbers of 64 bits."""

    type: Literal["integer"] = "integer"

    min: int | None = None
    """Smallest value."""

    max: int | None = None
    """Largest value."""

    classes: tuple[Int64, ...] | None = None
    """The only values allowed; of a label, in the order of class indices."""

    arrow: ClassVar[pa.DataType] = pa.int64()

    identifies: ClassVar[bool] = True
    orders: ClassVar[bool] = True

    @property
    def bounded(self) -> bool:
        return super().bounded or (self.min, self.max) != (None, None)

    map: dict[Word, Int64 | None] = Field(default_factory=dict)

    def fits(self, kind: pa.DataType, *, is_text: bool) -> bool:
        return super().fits(kind, is_text=is_text) or bool(pa.types.is_boolean(kind))

    def parse(self, value: Any) -> int:
        """Return a 64-bit whole number; 3.0 is one, since pandas writes integers so where some are missing."""
        whole = value if isinstance(value, int | Decimal) else parse_float(value)
        if isinstance(value, str) and "." not in value and "e" not in value.lower():
            whole = int(value)
        if whole != int(whole) or not -(2**63) <= whole < 2**63:
            raise ValueError(value)
        return int(whole)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        # Integers with missing values keep all 64 bits in pandas' own type only. Not a Series: it has an
        # index, and a frame of a later batch would look its values up by row number.
        series = typed.to_pandas(types_mapper=_nullable if typed.null_count else None)
        return {"value": series.array}

    def rules(self, name: str) -> list[Rule]:
        rules = super().rules(name) + bounds(name, "value", self.min, self.max)
        return rules + ([] if self.classes is None else [among(f"{name}.classes", f"{name}.value", self.classes)])

    def histograms(self, name: str) -> Histograms | None:
        return super().histograms(name) or interval(name, self.min, self.max)


class Float(Scalar, Label):
    """Finite numbers of 64 bits."""

    type: Literal["float"] = "float"

    min: float | None = None
    """Smallest value."""

    max: float | None = None
    """Largest value."""

    arrow: ClassVar[pa.DataType] = pa.float64()
    weighs: ClassVar[bool] = True
    label_type: ClassVar[str] = "number"
    one_class: ClassVar[bool] = False

    def casts(self, kind: pa.DataType, *, is_text: bool) -> bool:
        return not is_text  # Arrow takes other spellings of floats than Python

    def parse(self, value: Any) -> float:
        return parse_float(value)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        values = typed.to_numpy(zero_copy_only=False)
        valid = typed.is_valid().to_numpy(zero_copy_only=False)
        finite = np.isfinite(values)
        facts = {"value": np.where(finite, values, np.nan), "not_finite": (valid & ~finite).astype(np.int64)}
        return facts | ({"not_positive": (values <= 0).astype(np.int64)} if self.role == "weight" else {})

    def rules(self, name: str) -> list[Rule]:
        finite = between(f"{name}.finite", f"{name}.not_finite", 0, 0, "neither NaN nor infinite", shows="raw")
        positive = between(f"{name}.positive", f"{name}.not_positive", 0, 0, "a weight is above 0", shows="raw")
        weight = [positive] if self.role == "weight" else []
        return [*super().rules(name), finite, *weight, *bounds(name, "value", self.min, self.max)]

    def histograms(self, name: str) -> Histograms | None:
        return interval(name, self.min, self.max)


@dataclass(frozen=True)
class NumberLabel(StoredLabel):
    """One number a row."""

    type: ClassVar[str] = "number"

    def values(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return (n,) float64."""
        numbers: np.ndarray = column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.float64)
        return self.checked(numbers)

    def checked(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers. Raises ValueError if one is not finite."""
        if not np.isfinite(numbers).all():
            raise ValueError(f"column '{self.name}' holds what is no finite number")
        return numbers

    def croissant(self) -> dict[str, Any]:
        return {"dataType": "sc:Float"}

    def invented(self, features: pa.Array) -> pa.Array:
        return pa.array(np.random.default_rng(0).standard_normal(len(features)))


def _nullable(kind: pa.DataType) -> Any:
    import pandas as pd

    return pd.Int64Dtype() if kind == pa.int64() else None


def parse_float(value: str | float) -> float:
    """Return a number, which CSV spells in ASCII and without `_`. Raises ValueError."""
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(value)
    return float(value)


def bounds(name: str, fact: str, low: float | None, high: float | None) -> list[Rule]:
    """Return the rules on a fact of the column: at least `low`, at most `high`, if given."""
    rules = []
    if low is not None:
        rules.append(between(f"{name}.min", f"{name}.{fact}", low, None, f"at least {low}"))
    if high is not None:
        rules.append(between(f"{name}.max", f"{name}.{fact}", None, high, f"at most {high}"))
    return rules


def interval(name: str, low: float | None, high: float | None) -> Histograms | None:
    """Return the empty histogram between two bounds, or None where one is missing."""
    return None if low is None or high is None else NumberHistogram(name, float(low), float(high))
