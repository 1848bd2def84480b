"""Parameters of how a class is chosen, and when none is; without torch, like all parameter models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from graftline.errors import InputError, nearest
from graftline.problems.scores import ProblemParams
from graftline.score import Floats
from graftline.tasks.parameters import Params, Sparing


class Calibration(Params):
    """What val says of a classifier's probabilities after training; no weight changes."""

    temperature: bool = True
    """Divide the logits by the number that makes val most probable (Guo et al., 2017), so that a probability says how
    often the model is right. The largest stays the largest."""
    coverage: float = Field(default=0.9, ge=0.5, le=0.99)
    """Share of the rows whose set of classes is to hold the right one, from 0.5 to 0.99 in steps of 0.01: of the sets
    that evaluate measures. `predict --coverage` takes any."""


class Cost(Params):
    """What one error costs."""

    actual: int | str
    """The class that it is."""
    chosen: int | str
    """The class that it was told to be."""
    cost: float = Field(ge=0, le=1e9)
    """In any unit, at least 0; an error that is not named costs 1, a right answer nothing."""


class DecidingParams(Sparing, ProblemParams):
    """Parameters of the heads that choose one of some classes."""

    untold = ("calibration", "costs")
    confuses = True

    calibration: Calibration | None = None
    """Calibrate probabilities and sets of classes on val; null leaves probabilities as training made them. It needs
    labels held out: not with `labels_per_class`, and in the lift at all labels only."""
    costs: tuple[Cost, ...] | None = Field(default=None, min_length=1)
    """What errors cost, such as `[{actual: ill, chosen: well, cost: 20}]`: the class with the least expected cost is
    chosen. Null chooses the most probable one."""

    @property
    def holds_out(self) -> str | None:
        return "calibration" if self.calibration else None


def cost_matrix(costs: Sequence[Cost] | None, classes: Sequence[object]) -> Floats | None:
    """Return (actual, chosen) what each answer costs; None without costs. Raises InputError for unknown classes."""
    if costs is None:
        return None
    places = {str(name): place for place, name in enumerate(classes)}
    matrix = 1 - np.eye(len(places))
    for number, one in enumerate(costs):
        names = str(one.actual), str(one.chosen)
        for name in names:
            if name not in places:
                raise InputError(
                    f"finetune.head.costs.{number}",
                    f"unknown class '{name}'{nearest(name, list(places))}",
                    expected="one of " + ", ".join(places),
                )
        matrix[places[names[0]], places[names[1]]] = one.cost
    return matrix
