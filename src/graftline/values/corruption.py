"""How a value of a kind of column may be spoiled, as the world spoils it: what `evaluate.shifts` measures models on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
OF_PICTURES = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""Named here: whoever reads a schema need not load SciPy."""
OF_TEXTS = ("typos", "case", "ocr", "dropped_words", "swapped_words")
OF_ENGLISH = ("synonyms",)
"""Of texts, but only of those in English: to be asked for by name."""
OF_CLIPS = (
    "white_noise", "pink_noise", "hum", "reverberation", "telephone", "lost_packets", "clipping", "quiet",
)  # fmt: skip


@dataclass(frozen=True)
class Corruption:
    """One way to spoil values, at one severity: a pure function of the value, the seed and the row's number."""

    name: str
    severity: int
    """1 to 5."""
    seed: int

    @property
    def level(self) -> int:
        """The place of the severity in a list of five."""
        return self.severity - 1

    def draws(self, rows: Iterable[int]) -> Iterable[np.random.Generator]:
        """Yield a generator for each row. It does not depend on the severity: a harder one spoils the same places."""
        kind = crc32(self.name.encode())
        for row in rows:
            yield np.random.default_rng([self.seed, kind, int(row)])
