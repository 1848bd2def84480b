"""Images and the objects in them, in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from graftline.problems.images import ImageExamples
from graftline.values.boxes import Objects
from graftline.values.pixels import Pixels

_OBJECTS = "objects."
"""In front of the names of the objects' arrays."""


@dataclass(frozen=True)
class Scenes(ImageExamples):
    """Images of one split, any number of objects in each."""

    pixels: Pixels
    labels: Objects | None
    """None of unlabelled images."""
    rows: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def classes(self) -> None:
        return None

    @property
    def objects(self) -> Objects:
        """Those of labelled images."""
        assert self.labels is not None
        return self.labels

    def take(self, chosen: torch.Tensor) -> Self:
        places = chosen.numpy()
        labels = None if self.labels is None else self.labels.take(places)
        weights = None if self.weights is None else self.weights[chosen]
        return type(self)(self.pixels.take(places), labels, self.rows[chosen], weights)

    def arrays(self) -> dict[str, np.ndarray]:
        objects = {} if self.labels is None else self.labels.arrays()
        weights = {} if self.weights is None else {"weights": self.weights.numpy()}
        named = {f"{_OBJECTS}{name}": array for name, array in objects.items()}
        return {**self.pixels.arrays(), **named, "rows": self.rows.numpy(), **weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        of = {name.removeprefix(_OBJECTS): array for name, array in arrays.items() if name.startswith(_OBJECTS)}
        weights = torch.from_numpy(arrays["weights"]) if "weights" in arrays else None
        labels = Objects.from_arrays(of) if of else None
        return cls(Pixels.from_arrays(arrays), labels, torch.from_numpy(arrays["rows"]), weights)

    def digest(self) -> str:
        sha = hashlib.sha256()
        for part in self.pixels.parts():
            sha.update(part.data)
        for array in () if self.labels is None else self.labels.arrays().values():
            sha.update(np.ascontiguousarray(array).data)
        sha.update(b"" if self.weights is None else self.weights.numpy().tobytes())
        return sha.hexdigest()
