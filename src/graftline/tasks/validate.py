"""Parameters of the component `validate`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from graftline.tasks.parameters import Sparing


class ValidateParams(Sparing):
    """The section `validate` of a task's parameters."""

    untold = ("partial",)

    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """Largest share of rows that may go to the quarantine before the run stops, from 0 to 1."""

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the labelled rows in test, about, from 0 to 1; unused if the raw data brings its split."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the labelled rows in val, about, above 0 and below 1; likewise."""

    drift_warning: float = Field(default=0.2, gt=0)
    """Population stability index of a distribution against the champion's from which on to warn, above 0."""

    partial: bool = False
    """Whether the rows are a part of the task's, as at a site of federated fine-tuning: classes may then be missing,
    and min_rows and balance are not asked for."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.test_fraction + self.val_fraction >= 1:
            raise ValueError("test_fraction plus val_fraction must be below 1: nothing is left for train")
        return self
