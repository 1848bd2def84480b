"""What every model that finds boxes is, whatever its head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from graftline.problems.detection.boxes import Found
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.scores import best_threshold
from graftline.problems.groups import Groups
from graftline.problems.images import TrunkModel
from graftline.trunks.image_trunk import ImageTrunk
from graftline.values.pixels import Pixels

LEAST = 0.01
"""Probability below which there is no box: AP loses nothing by them, and there are many."""
_UNCHOSEN = 0.3
"""The threshold where val says nothing."""


@dataclass(frozen=True)
class Sight:
    """What a model finds in some images."""

    found: Found


class Finder(TrunkModel[Scenes, DetectionParams]):
    """Images to boxes with classes and probabilities."""

    def __init__(self, trunk: ImageTrunk, params: DetectionParams) -> None:
        super().__init__(trunk, params)
        self.threshold = _UNCHOSEN if params.threshold is None else params.threshold

    @abstractmethod
    def see(self, pixels: Pixels, *, fast: bool = False) -> Iterator[Sight]:
        """Yield what is found in some images after the other."""

    def calibrate(self, val: Scenes, groups: Groups | None = None) -> None:
        """Choose the threshold, if the parameters leave it open."""
        if self._params.threshold is None:
            found: Any = self.answer(val)
            self.threshold = best_threshold(found.found, found.true) or _UNCHOSEN

    def save(self, folder: Path) -> dict[str, Any]:
        self.trunk.save_alone(folder)
        return {"trunk": self.trunk.config(), "threshold": self.threshold}

    def restore(self, folder: Path, facts: dict[str, Any]) -> Self:
        """Return the model with what `save` wrote. Raises InputError; KeyError, TypeError or ValueError."""
        self.threshold = float(facts["threshold"])
        return self
