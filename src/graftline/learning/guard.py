"""Stops a run that has gone wrong: a loss that is no number, or one that has left where it was.

A loss is too high above `median + factor * spread` of the last 100 losses that were not, where spread is 1.4826 times
the median distance from the median (the standard deviation, for a normal distribution), at least 1% of the median.
One such batch is noise; 10 steps in a row are a run that has diverged. All of it is a pure function of the losses, so
that a resumed run stops where an unbroken one does.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Any

from graftline.errors import GraftlineError

WINDOW = 100
"""Losses that say where the loss is; there is no limit before there are so many."""
PATIENCE = 10
"""Steps in a row above the limit that end the run."""
_NORMAL = 1.4826
_LEAST_SPREAD = 0.01


class LossError(GraftlineError):
    """The loss of a step is one to stop at."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(what)
        self.step = step
        """The first step (from 1) that was wrong."""


class Guard:
    """Looks at every loss, in order."""

    def __init__(self, spike_factor: float | None) -> None:
        """`spike_factor` is `factor` of the rule above; None to stop at NaN and infinity only."""
        self._factor = spike_factor
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._above = 0

    @property
    def suspects(self) -> bool:
        """Whether the last loss was too high: what follows may be what a checkpoint should not hold."""
        return self._above > 0

    def look(self, step: int, loss: float) -> None:
        """Take the loss of step `step` (from 1). Raises LossError."""
        if not math.isfinite(loss):
            raise LossError(step, f"the loss is {loss} at step {step}")
        if self._factor is None:
            return
        limit = self._limit(self._factor)
        if loss <= limit:
            self._losses.append(loss)
            self._above = 0
            return
        self._above += 1
        if self._above == PATIENCE:
            first = step - PATIENCE + 1
            raise LossError(first, f"the loss rose above {limit:.4g} at step {first} and is {loss:.4g} at step {step}")

    def _limit(self, factor: float) -> float:
        if len(self._losses) < WINDOW:
            return math.inf
        middle = median(self._losses)
        spread = _NORMAL * median(abs(loss - middle) for loss in self._losses)
        return middle + factor * max(spread, _LEAST_SPREAD * abs(middle))

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"losses": list(self._losses), "above": self._above}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._losses.extend(state["losses"])
        self._above = state["above"]
