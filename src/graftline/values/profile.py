"""The distributions of a dataset (`profile.json`), and how far they moved since another one.

The measure is the population stability index, the symmetric Kullback-Leibler divergence of two histograms:
the sum over bins of (p - q) * ln(p / q). By custom, below 0.1 is no shift, above 0.25 a large one (Siddiqi,
"Credit Risk Scorecards", 2006).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.values.contract import Contract, Float, Image, Integer, String, Tags

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BINS = 20
PIXEL_BINS = 16
LENGTHS = [0, *(2**power for power in range(24))]
"""Edges of the histograms of lengths, in characters or words; longer ones count in the last."""
FREQUENT_WORDS = 1000
"""How many words a profile keeps, the most frequent."""
DRIFT_WORDS = 100
"""How many of them a stability index takes one by one; all others are one bin."""
COUNTED_WORDS = 200_000
"""How many different words are counted at once: when there are more, the rarer half is dropped."""
FLOOR = 1e-4
"""Smallest share that a bin is taken to have: an empty one would make the index infinite."""
VERSION = 1
PUNCTUATION = ".,;:!?\"'`()[]{}<>-_*/\\|~\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026\u2013\u2014"


@dataclass
class Profile:
    """Histograms of the good rows, filled batch by batch."""

    contract: Contract
    rows: int = 0
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each by name: `bins` (edges of BINS intervals, or the values themselves) and `counts`."""
    words: Counter[str] = field(default_factory=Counter)
    """Words in lower case, without punctuation at their ends."""

    def __post_init__(self) -> None:
        name, feature = self.contract.feature
        if isinstance(feature, Image):
            self._ranged(f"{name}.mean", feature.min, feature.max, BINS)
            self._ranged(f"{name}.deviation", 0.0, (feature.max - feature.min) / 2, BINS)
            self._ranged(f"{name}.pixels", feature.min, feature.max, PIXEL_BINS)
        else:
            for unit in ("characters", "words"):
                self.histograms[f"{name}.{unit}"] = {"bins": LENGTHS, "counts": [0] * (len(LENGTHS) - 1)}
        for name, column in self.contract.columns.items():
            if isinstance(column, Integer | String | Tags) and column.classes is not None:
                self.histograms[name] = {"bins": list(column.classes), "counts": [0] * len(column.classes)}
            elif isinstance(column, Integer | Float) and column.min is not None and column.max is not None:
                self._ranged(name, float(column.min), float(column.max), BINS)

    def _ranged(self, name: str, low: float, high: float, bins: int) -> None:
        edges = [low + (high - low) * step / bins for step in range(bins + 1)]
        self.histograms[name] = {"bins": edges, "counts": [0] * bins}

    def add(self, columns: dict[str, pa.Array]) -> None:
        """Count a batch of good rows."""
        import pyarrow as pa

        name, feature = self.contract.feature
        self.rows += len(columns[name])
        if isinstance(feature, Image):
            self._add_images(columns[name].flatten().to_numpy().reshape(len(columns[name]), -1))
        else:
            self._add_texts(name, columns[name])
        for name, column in self.contract.columns.items():
            histogram = self.histograms.get(name)
            if histogram is None:
                continue
            values = columns[name].drop_null()
            if pa.types.is_list(values.type):
                values = values.flatten()
            if getattr(column, "classes", None) is not None:
                counted = {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()}
                for place, value in enumerate(histogram["bins"]):
                    histogram["counts"][place] += counted.get(value, 0)
            else:
                self._count(name, values.to_numpy(zero_copy_only=False))

    def _add_images(self, pixels: np.ndarray) -> None:
        import numpy as np

        name, _ = self.contract.feature
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

    def _add_texts(self, name: str, texts: pa.Array) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_list(texts.type):
            texts = pc.binary_join(texts, " ")
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))
        for unit, lengths in (("characters", pc.utf8_length(texts)), ("words", pc.list_value_length(words))):
            self._count(f"{name}.{unit}", np.minimum(lengths.to_numpy(), LENGTHS[-1]))
        bare = pc.utf8_lower(pc.utf8_trim(words.flatten(), characters=PUNCTUATION))
        counted = bare.filter(pc.not_equal(bare, "")).value_counts()
        self.words.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
        if len(self.words) > COUNTED_WORDS:
            self.words = Counter(dict(self.words.most_common(COUNTED_WORDS // 2)))

    def _count(self, name: str, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        import numpy as np

        histogram = self.histograms[name]
        counts, _ = np.histogram(values, bins=np.array(histogram["bins"]), weights=weights)
        histogram["counts"] = [old + int(new) for old, new in zip(histogram["counts"], counts, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        histograms = dict(self.histograms)
        if not isinstance(self.contract.feature[1], Image):
            frequent = sorted(self.words.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_WORDS]
            histograms[f"{self.contract.feature[0]}.frequent"] = {
                "bins": [word for word, _ in frequent], "counts": [count for _, count in frequent],
                "total": self.words.total(),
            }  # fmt: skip
        return {"version": VERSION, "rows": self.rows, "histograms": histograms}


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
