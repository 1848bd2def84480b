"""Histograms of a column's good values, filled batch by batch: what `profile.json` is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BINS = 20
LENGTHS = [0, *(2**power for power in range(24))]
"""Edges of the histograms of lengths, in characters or words; longer ones count in the last."""
FREQUENT_WORDS = 1000
"""How many words a profile keeps, the most frequent."""
COUNTED_WORDS = 200_000
"""How many different words are counted at once: when there are more, the rarer half is dropped."""
PUNCTUATION = ".,;:!?\"'`()[]{}<>-_*/\\|~\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026\u2013\u2014"


class Histograms:
    """The histograms of one column."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        """Each by name: `bins` (edges of intervals, or the values themselves) and `counts`."""

    def add(self, values: pa.Array) -> None:
        """Count a batch of good values."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return self.found

    def intervals(self, name: str, low: float, high: float, bins: int = BINS) -> None:
        """Begin a histogram over intervals of equal width."""
        edges = [low + (high - low) * step / bins for step in range(bins + 1)]
        self.found[name] = {"bins": edges, "counts": [0] * bins}

    def lengths(self, name: str) -> None:
        """Begin a histogram of lengths or counts."""
        self.found[name] = {"bins": LENGTHS, "counts": [0] * (len(LENGTHS) - 1)}

    def each(self, name: str, values: Sequence[Any]) -> None:
        """Begin a histogram over the values themselves."""
        self.found[name] = {"bins": list(values), "counts": [0] * len(values)}

    def count(self, name: str, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Count values (each `weights` times) into their intervals."""
        histogram = self.found[name]
        counts, _ = np.histogram(values, bins=np.array(histogram["bins"]), weights=weights)
        histogram["counts"] = [old + int(new) for old, new in zip(histogram["counts"], counts, strict=True)]


class NumberHistogram(Histograms):
    """Numbers between two bounds."""

    def __init__(self, name: str, low: float, high: float) -> None:
        super().__init__()
        self._name = name
        self.intervals(name, low, high)

    def add(self, values: pa.Array) -> None:
        if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        self.count(self._name, values.drop_null().to_numpy(zero_copy_only=False))


class ClassHistogram(Histograms):
    """How often each class occurs, by itself or in lists."""

    def __init__(self, name: str, classes: tuple[Any, ...]) -> None:
        super().__init__()
        self._name = name
        self.each(name, classes)

    def add(self, values: pa.Array) -> None:
        values = values.drop_null()
        if pa.types.is_list(values.type):
            values = values.flatten()
        counted = {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()}
        histogram = self.found[self._name]
        for place, value in enumerate(histogram["bins"]):
            histogram["counts"][place] += counted.get(value, 0)


@dataclass
class TextHistograms(Histograms):
    """Lengths in characters and words, and the most frequent words."""

    name: str
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)
    """Words in lower case, without punctuation at their ends."""

    def __post_init__(self) -> None:
        for unit in ("characters", "words"):
            self.lengths(f"{self.name}.{unit}")

    def add(self, values: pa.Array) -> None:
        if pa.types.is_list(values.type):
            values = pc.binary_join(values, " ")
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(values))
        for unit, lengths in (("characters", pc.utf8_length(values)), ("words", pc.list_value_length(words))):
            self.count(f"{self.name}.{unit}", np.minimum(lengths.to_numpy(), LENGTHS[-1]))
        bare = pc.utf8_lower(pc.utf8_trim(words.flatten(), characters=PUNCTUATION))
        counted = bare.filter(pc.not_equal(bare, "")).value_counts()
        self.words.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
        if len(self.words) > COUNTED_WORDS:
            self.words = Counter(dict(self.words.most_common(COUNTED_WORDS // 2)))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        frequent = sorted(self.words.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_WORDS]
        return self.found | {
            f"{self.name}.frequent": {
                "bins": [word for word, _ in frequent],
                "counts": [count for _, count in frequent],
                "total": self.words.total(),
            }
        }
