"""Documents, one a row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from graftline.dataset import TextColumn
from graftline.tables import RawBatch
from graftline.values.column import Column, Nearness
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.rules import Rule, between

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CONTROLS = "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x{9f}]"
"""Unicode's control characters (category Cc) but tab, line feed and carriage return, as RE2 writes them."""


_SHOWN_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


class Text(Column):
    """Documents, one a row. Control characters are bad, but for tab, line feed and carriage return."""

    type: Literal["text"] = "text"

    role: Literal["feature", "label", "split", "metadata"] = "feature"
    """Text is what the model sees."""

    min_length: int = Field(default=1, ge=1)
    """Smallest length in characters, without white space at the ends."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in characters, likewise."""

    nearness: ClassVar[Nearness] = "min_jaccard"

    def as_feature(self, name: str) -> TextColumn:
        return TextColumn(name)

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.string()

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        import numpy as np
        import pyarrow.compute as pc

        array = _strings(batch, name)
        # White space at the ends is kept, but does not make a document longer.
        facts = {
            "given": np.where(valid_mask(array), 1.0, np.nan),
            "length": _numbers(pc.utf8_length(pc.utf8_trim_whitespace(array))),
            "controls": _numbers(pc.count_substring_regex(array, CONTROLS)),
        }

        def as_found(position: int) -> str:
            return show_text(str(array[position].as_py()))

        def take(mask: np.ndarray) -> pa.Array:
            import pyarrow as pa

            return array.filter(pa.array(mask))

        return ColumnBatch(facts, as_found, take)

    def rules(self, name: str) -> list[Rule]:
        text = "no control character but tab and line ends"
        return [
            *length_rules(name, self.min_length, self.max_length, "characters"),
            between(f"{name}.characters", f"{name}.controls", 0, 0, text, shows="raw"),
        ]


def show_text(text: str) -> str:
    """Return the beginning of a text with its control characters as escapes."""
    return _SHOWN_CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", shorten(text))


def length_rules(name: str, low: int, high: int | None, unit: str) -> list[Rule]:
    rules = [between(f"{name}.min_length", f"{name}.length", low, None, f"at least {low} {unit}")]
    if high is not None:
        rules.append(between(f"{name}.max_length", f"{name}.length", None, high, f"at most {high} {unit}"))
    return rules


def _strings(batch: RawBatch, name: str) -> pa.Array:
    import pyarrow as pa

    array = batch.columns[name]
    kind = array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise wrong_type(batch, name, kind, "text (string)")
    return array.cast(pa.string())


def valid_mask(array: pa.Array) -> np.ndarray:
    valid: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _numbers(array: pa.Array) -> np.ndarray:
    """Return (n,) float64, NaN where null."""
    import numpy as np

    numbers: np.ndarray = array.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers
