"""Short texts: a class, the name of a split, an id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from graftline.tables import RawBatch
from graftline.values.column import Balance, Column
from graftline.values.facts import ColumnBatch
from graftline.values.rules import Rule, between
from graftline.values.scalar import one_of, read_scalar, readable

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "val", "test")


class String(Column):
    """Text."""

    type: Literal["string"] = "string"

    classes_are_words: ClassVar[bool] = True

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in characters."""

    classes: tuple[str, ...] | None = None
    """The only values allowed; of a label, in the order of class indices."""

    balance: Balance = Balance()
    """Of a label."""

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.string()

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        return read_scalar(batch, name, self, str)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        import numpy as np
        import pyarrow.compute as pc

        facts: dict[str, Any] = {}
        if self.max_length is not None:
            facts["length"] = pc.utf8_length(typed).to_numpy(zero_copy_only=False)
        if self.classes is not None or self.role == "split":
            facts["value"] = np.array(typed.to_pylist(), object)
        return facts

    def rules(self, name: str) -> list[Rule]:
        rules = [readable(name, self.type)]
        if self.max_length is not None:
            text = f"at most {self.max_length} characters"
            rules.append(
                between(f"{name}.max_length", f"{name}.length", None, self.max_length, text, shows="raw")
            )
        return [*rules, *one_of(name, SPLITS if self.role == "split" else self.classes)]
