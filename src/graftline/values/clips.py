"""Clips of sound in memory: their samples end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np


@dataclass(frozen=True, eq=False)
class Clips:
    """n clips of one rate."""

    samples: np.ndarray
    """(all clips' samples,) int16."""
    offsets: np.ndarray
    """(n + 1,) int64; clip i is `samples[offsets[i]:offsets[i + 1]]`."""
    rate: int
    """Samples a second."""

    @classmethod
    def of(cls, clips: Sequence[np.ndarray], rate: int) -> Clips:
        """Return clips of (samples,) int16 each."""
        offsets = np.zeros(len(clips) + 1, np.int64)
        np.cumsum([len(clip) for clip in clips], out=offsets[1:])
        return cls(np.concatenate(clips) if clips else np.empty(0, np.int16), offsets, rate)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, place: slice) -> Clips: ...

    def __getitem__(self, place: int | slice) -> np.ndarray | Clips:
        """Return (samples,) int16 of one clip, or some clips."""
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        found: np.ndarray = self.samples[self.offsets[place] : self.offsets[place + 1]]
        return found

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64 samples of each."""
        return np.diff(self.offsets)

    def take(self, chosen: np.ndarray) -> Clips:
        """Return the clips at these (k,) places, in that order."""
        return Clips.of([self[int(place)] for place in chosen], self.rate)
