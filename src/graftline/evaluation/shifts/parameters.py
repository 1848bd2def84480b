"""Parameters of `evaluate.shifts`; without torch, like all parameter models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field, field_validator

from graftline.problems.scores import ECE
from graftline.score import Score
from graftline.tasks.parameters import Params
from graftline.values.corruption import OF_CLIPS, OF_ENGLISH, OF_PICTURES, OF_TEXTS, SEVERITIES

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,40}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Severity = Annotated[int, Field(ge=SEVERITIES[0], le=SEVERITIES[-1])]


class DataShift(Params):
    """Rows of another source than those that are learned from: a place, a time, a designer, a kind of page."""

    column: str = Field(min_length=1)
    """The column that tells them apart, of role metadata, group or label."""
    train: tuple[Pattern, ...] = Field(min_length=1)
    """The values of the rows that fits learn from, with `*`, `?` and `[...]` as in file names: `tr-*`."""
    test: tuple[Pattern, ...] = Field(min_length=1)
    """The values of the test rows that they are then asked about, likewise."""


class ShiftParams(Params):
    """The section `evaluate.shifts` of a task's parameters."""

    corruptions: tuple[Name, ...] | None = None
    """Ways to spoil what the model sees, by name; null for all that its kind of column has in any language, empty for
    none."""
    severities: tuple[Severity, ...] = Field(default=SEVERITIES, min_length=1)
    """How much, 1 to 5."""
    data: dict[Name, DataShift] = Field(default={}, max_length=20)
    """Real shifts, by name: fine-tunings of their own that learn from some rows and are asked about others."""
    labels: Annotated[int, Field(ge=1)] | None = None
    """Labels a class of the fits that are asked, from the trunk and from scratch; null for all. One of `lift_labels`:
    the lift's own fits answer the spoiled rows too."""
    test_rows: Annotated[int, Field(ge=2)] | None = 500
    """Test rows that are spoiled or asked about, a fixed sample; null for all."""

    @field_validator("corruptions", "severities")
    @classmethod
    def _none_twice(cls, given: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if given is not None and len(set(given)) != len(given):
            raise ValueError("one stands twice")
        return tuple(sorted(given, key=str)) if given is not None and all(type(one) is int for one in given) else given

    @field_validator("data")
    @classmethod
    def _names_are_of_no_other_metric(cls, data: dict[str, DataShift]) -> dict[str, DataShift]:
        for name in data:
            if name in ("low", "high") or name.endswith(("_low", "_high")):
                raise ValueError(f"data.{name}: shift_lift_{name} would be the end of an interval; name it otherwise")
            if name in (*OF_PICTURES, *OF_TEXTS, *OF_ENGLISH, *OF_CLIPS):
                raise ValueError(f"data.{name}: shift_lift_{name} is of the corruption '{name}'; name it otherwise")
        return data

    def scores(self, of_head: Sequence[Score]) -> Iterator[Score]:
        """Yield what the gate may name, given the head's scores: figures of metrics.json."""
        primary = of_head[0]
        gain = Score("shift_lift", "", share=primary.share, lowest=-1.0 if primary.share else -math.inf)
        if self.corruptions != ():
            yield replace(primary, name=f"shifted_{primary.name}")
            yield Score("mce", "mean corruption error against scratch", higher=False, share=False)
            yield gain
            if ECE in of_head:
                yield replace(ECE, name=f"shifted_{ECE.name}")
        for name in (*(self.corruptions or ()), *self.data):
            yield replace(gain, name=f"shift_lift_{name}")
        for name in self.corruptions or ():
            yield replace(primary, name=f"shifted_{primary.name}_{name}")
