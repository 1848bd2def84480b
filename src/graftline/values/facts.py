"""What a raw column of a batch becomes: facts about every value for the rules to judge, and the good values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.errors import InputError
from graftline.raw.batches import RawBatch

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 80
"""Characters of a value that the quarantine keeps."""


@dataclass(frozen=True)
class ColumnBatch:
    """One column of a batch, read as the contract's type."""

    facts: dict[str, Any]
    """Each fact by name: n values (numpy, or a pandas array with missing ones)."""
    as_found: Callable[[int], str]
    """Return the text of the raw value at a position of the batch."""
    take: Callable[[np.ndarray], pa.Array]
    """Return the values where a mask is true, in the output's type; all of them must be good."""
    changes: Mapping[str, int] = field(default_factory=dict)
    """How many values each change was made to on reading, by its word."""


def taken(values: pa.Array) -> Callable[[np.ndarray], pa.Array]:
    """Return `take` of a column whose good values are these, in the output's type."""
    return lambda mask: values.filter(mask)


def shorten(value: str) -> str:
    return value if len(value) <= SHOWN else value[: SHOWN - 3] + "..."


def wrong_type(batch: RawBatch, name: str, kind: pa.DataType, expected: str) -> InputError:
    return InputError(
        f"{batch.file}: column '{name}'",
        f"type {kind}",
        expected=expected,
        fix="convert the column, or correct the contract",
    )


def of_faults(faults: Sequence[tuple[str, str] | None], given: np.ndarray, rules: Iterable[str]) -> dict[str, Any]:
    """Return the facts of values that break one rule each, if any: its name and what is wrong; `given` are not null."""
    facts: dict[str, Any] = {"given": np.where(given, 1.0, np.nan)}
    for rule in rules:
        facts[rule] = np.array([fault[1] if fault and fault[0] == rule else None for fault in faults], object)
    return facts
