"""The label of a sentence: one tag a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from graftline.tables import RawBatch
from graftline.values.column import Balance, Column
from graftline.values.facts import ColumnBatch
from graftline.values.rules import Rule, between
from graftline.values.words import count_runs, read_lists

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Tags(Column):
    """The label of a sentence: a list of tags (in CSV: with spaces between), as many as it has words."""

    type: Literal["tags"] = "tags"

    classes_are_words: ClassVar[bool] = True

    role: Literal["feature", "label", "split", "metadata"] = "label"
    """Tags are the label."""

    classes: tuple[str, ...]
    """The only tags allowed, in the order of class indices."""

    balance: Balance = Balance()
    """Of all tags, not of sentences."""

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.string())

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        return read_lists(batch, name, self._facts)

    def _facts(self, flat: pa.Array, lengths: np.ndarray) -> dict[str, np.ndarray]:
        import pyarrow as pa
        import pyarrow.compute as pc

        known = pc.is_in(flat, pa.array(self.classes, pa.string()))
        return {"unknown": count_runs(~known.to_numpy(zero_copy_only=False), lengths)}

    def rules(self, name: str) -> list[Rule]:
        listed = ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")
        return [
            between(f"{name}.classes", f"{name}.unknown", 0, 0, f"every tag is one of {listed}", shows="raw"),
            between(f"{name}.length", f"{name}.more_than_words", 0, 0, "as many tags as words"),
        ]
