"""The distributions of a dataset (`profile.json`), and how far they moved since another one.

The measure is the population stability index, the symmetric Kullback-Leibler divergence of two histograms:
the sum over bins of (p - q) * ln(p / q). By custom, below 0.1 is no shift, above 0.25 a large one (Siddiqi,
"Credit Risk Scorecards", 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.components.validate.contract import Contract, Float, Integer, String

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BINS = 20
PIXEL_BINS = 16
FLOOR = 1e-4
"""Smallest share that a bin is taken to have: an empty one would make the index infinite."""
VERSION = 1


@dataclass
class Profile:
    """Histograms of the good rows, filled batch by batch."""

    contract: Contract
    rows: int = 0
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each by name: `bins` (edges of BINS intervals, or the values themselves) and `counts`."""

    def __post_init__(self) -> None:
        name, image = self.contract.image
        span = image.max - image.min
        self._ranged(f"{name}.mean", image.min, image.max, BINS)
        self._ranged(f"{name}.deviation", 0.0, span / 2, BINS)
        self._ranged(f"{name}.pixels", image.min, image.max, PIXEL_BINS)
        for name, column in self.contract.columns.items():
            if isinstance(column, Integer | String) and column.classes is not None:
                self.histograms[name] = {"bins": list(column.classes), "counts": [0] * len(column.classes)}
            elif isinstance(column, Integer | Float) and column.min is not None and column.max is not None:
                self._ranged(name, float(column.min), float(column.max), BINS)

    def _ranged(self, name: str, low: float, high: float, bins: int) -> None:
        edges = [low + (high - low) * step / bins for step in range(bins + 1)]
        self.histograms[name] = {"bins": edges, "counts": [0] * bins}

    def add(self, columns: dict[str, pa.Array], pixels: np.ndarray) -> None:
        """Count a batch of good rows; `pixels` is its image column, (n, pixels)."""
        self.rows += len(pixels)
        self._add_images(pixels)
        for name, column in self.contract.columns.items():
            histogram = self.histograms.get(name)
            if histogram is None:
                continue
            values = columns[name].drop_null()
            if getattr(column, "classes", None) is not None:
                counted = {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()}
                for place, value in enumerate(histogram["bins"]):
                    histogram["counts"][place] += counted.get(value, 0)
            else:
                self._count(name, values.to_numpy(zero_copy_only=False))

    def _add_images(self, pixels: np.ndarray) -> None:
        import numpy as np

        name, _ = self.contract.image
        for start in range(0, len(pixels), 4096):
            chunk = pixels[start : start + 4096]
            # Integers are summed exactly, so that the counts do not depend on the machine.
            numbers = chunk.astype(np.int64 if chunk.dtype == np.uint8 else np.float64)
            mean = numbers.sum(axis=1) / chunk.shape[1]
            square = np.einsum("ij,ij->i", numbers, numbers) / chunk.shape[1]
            self._count(f"{name}.mean", mean)
            self._count(f"{name}.deviation", np.sqrt(np.maximum(square - mean**2, 0.0)))
            if chunk.dtype == np.uint8:
                values = np.bincount(chunk.reshape(-1), minlength=256)
                self._count(f"{name}.pixels", np.arange(256), values)
            else:
                self._count(f"{name}.pixels", numbers.reshape(-1))

    def _count(self, name: str, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        import numpy as np

        histogram = self.histograms[name]
        counts, _ = np.histogram(values, bins=np.array(histogram["bins"]), weights=weights)
        histogram["counts"] = [old + int(new) for old, new in zip(histogram["counts"], counts, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        return {"version": VERSION, "rows": self.rows, "histograms": self.histograms}


def stability_index(counts: list[int], previous: list[int]) -> float:
    """Return the population stability index of two histograms with the same bins; 0 if either is empty."""
    total, before = sum(counts), sum(previous)
    if not total or not before:
        return 0.0
    index = 0.0
    for count, old in zip(counts, previous, strict=True):
        p, q = max(count / total, FLOOR), max(old / before, FLOOR)
        index += (p - q) * math.log(p / q)
    return index


def drift(profile: dict[str, Any], previous: dict[str, Any]) -> dict[str, float | None]:
    """Return the stability index of each histogram of `profile`; None where the previous one has other bins."""
    indices: dict[str, float | None] = {}
    for name, histogram in profile["histograms"].items():
        other = previous.get("histograms", {}).get(name)
        comparable = other is not None and other["bins"] == histogram["bins"]
        indices[name] = stability_index(histogram["counts"], other["counts"]) if comparable else None
    return indices
