"""Whole numbers and finite numbers of 64 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from graftline.tables import RawBatch
from graftline.values.column import Balance, Column
from graftline.values.facts import ColumnBatch
from graftline.values.rules import Rule, between
from graftline.values.scalar import one_of, read_scalar, readable

if TYPE_CHECKING:
    import pyarrow as pa

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Integer(Column):
    """Whole numbers of 64 bits."""

    type: Literal["integer"] = "integer"

    min: int | None = None
    """Smallest value."""

    max: int | None = None
    """Largest value."""

    classes: tuple[Int64, ...] | None = None
    """The only values allowed; of a label, in the order of class indices."""

    balance: Balance = Balance()
    """Of a label."""

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.int64()

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        return read_scalar(batch, name, self, _integer)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        # Integers with missing values keep all 64 bits in pandas' own type only. Not a Series: it has an
        # index, and a frame of a later batch would look its values up by row number.
        series = typed.to_pandas(types_mapper=_nullable if typed.null_count else None)
        return {"value": series.array}

    def rules(self, name: str) -> list[Rule]:
        return [readable(name, self.type), *_bounds(name, self.min, self.max), *one_of(name, self.classes)]


class Float(Column):
    """Finite numbers of 64 bits."""

    type: Literal["float"] = "float"

    min: float | None = None
    """Smallest value."""

    max: float | None = None
    """Largest value."""

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.float64()

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        return read_scalar(batch, name, self, _float)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        import numpy as np

        values = typed.to_numpy(zero_copy_only=False)
        valid = typed.is_valid().to_numpy(zero_copy_only=False)
        finite = np.isfinite(values)
        return {"value": np.where(finite, values, np.nan), "not_finite": (valid & ~finite).astype(np.int64)}

    def rules(self, name: str) -> list[Rule]:
        finite = between(
            f"{name}.finite", f"{name}.not_finite", 0, 0, "neither NaN nor infinite", shows="raw"
        )
        return [readable(name, self.type), finite, *_bounds(name, self.min, self.max)]


def _bounds(name: str, low: float | None, high: float | None) -> list[Rule]:
    rules = []
    if low is not None:
        rules.append(between(f"{name}.min", f"{name}.value", low, None, f"at least {low}"))
    if high is not None:
        rules.append(between(f"{name}.max", f"{name}.value", None, high, f"at most {high}"))
    return rules


def _nullable(kind: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow as pa

    return pd.Int64Dtype() if kind == pa.int64() else None


def _integer(value: str | int | float) -> int:
    """Return a 64-bit whole number; 3.0 is one, since pandas writes integers so where some are missing."""
    whole = value if isinstance(value, int) else _float(value)
    if isinstance(value, str) and "." not in value and "e" not in value.lower():
        whole = int(value)
    if whole != int(whole) or not -(2**63) <= whole < 2**63:
        raise ValueError(value)
    return int(whole)


def _float(value: str | float) -> float:
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(value)
    return float(value)
