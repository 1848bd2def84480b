"""The distributions of a dataset (`profile.json`), and how far they moved since another one.

The measure is the population stability index, the symmetric Kullback-Leibler divergence of two histograms:
the sum over bins of (p - q) * ln(p / q). By custom, below 0.1 is no shift, above 0.25 a large one (Siddiqi,
"Credit Risk Scorecards", 2006).
"""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from graftline.values.contract import Contract

DRIFT_WORDS = 100
"""How many frequent words a stability index takes one by one; all others are one bin."""
FLOOR = 1e-4
"""Smallest share that a bin is taken to have: an empty one would make the index infinite."""
VERSION = 1


class Profile:
    """Histograms of the good rows, filled batch by batch."""

    def __init__(self, contract: Contract) -> None:
        self.rows = 0
        made = {name: column.histograms(name) for name, column in contract.columns.items()}
        self._columns = {name: histograms for name, histograms in made.items() if histograms is not None}

    def add(self, columns: dict[str, pa.Array]) -> None:
        """Count a batch of good rows."""
        self.rows += len(next(iter(columns.values())))
        for name, histograms in self._columns.items():
            histograms.add(columns[name])

    def as_dict(self) -> dict[str, Any]:
        found = {k: v for histograms in self._columns.values() for k, v in histograms.as_dict().items()}
        return {"version": VERSION, "rows": self.rows, "histograms": found}


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
        if "total" in histogram:
            indices[name] = _word_index(histogram, other) if other is not None else None
            continue
        comparable = other is not None and other["bins"] == histogram["bins"]
        indices[name] = stability_index(histogram["counts"], other["counts"]) if comparable else None
    return indices


def _word_index(histogram: dict[str, Any], previous: dict[str, Any]) -> float:
    """Return the stability index of the shares of the previously most frequent words, and of all others.

    A word that is no longer among the most frequent counts as gone.
    """
    words = previous["bins"][:DRIFT_WORDS]
    now = dict(zip(histogram["bins"], histogram["counts"], strict=True))
    counts = [now.get(word, 0) for word in words]
    before = previous["counts"][:DRIFT_WORDS]
    rest = (histogram["total"] - sum(counts), previous["total"] - sum(before))
    return stability_index([*counts, rest[0]], [*before, rest[1]])
