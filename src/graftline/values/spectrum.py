"""How loud a clip is, and what it looks like: the levels of its frequencies over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image as Picture

from graftline.values.clip_decoding import FULL

BANDS = STEPS = 16
"""A fingerprint has so many bands of frequency and steps of time."""
_WINDOW_SECONDS = 0.032
_LOWEST = 100.0
"""Hertz from which the fingerprint's bands begin."""
_QUIET = 1e-3
"""What is 30 dB below the loudest window, at both ends, is no part of a fingerprint."""
_FLOOR = 1e-9
"""Power that stands for silence in a picture."""
_HEARD = 1e-4
"""What is 40 dB below the loudest place of a clip is lost in coding: a fingerprint does not look further down."""
_SHOWN = 80.0
"""Decibels between white and black."""
_AT_ONCE = 1 << 20
"""Samples that are looked at at once."""


def level(samples: np.ndarray) -> float:
    """Return the root mean square of (n,) int16 samples, in dB below full scale; -inf of none, or of zeros alone."""
    if not len(samples):
        return -np.inf
    parts = (samples[start : start + _AT_ONCE].astype(np.int64) for start in range(0, len(samples), _AT_ONCE))
    power = float(sum(int(np.square(part).sum()) for part in parts)) / len(samples) / FULL**2
    return 10 * float(np.log10(power)) if power else -np.inf


def power(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return (windows, frequencies) float64: the power of each frequency in windows of 32 ms, half of each shared."""
    return np.concatenate(list(_powers(samples, rate)))


def _powers(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """Yield what `power` returns, some windows at once: all of a long clip would take sixty times its memory."""
    size = 1 << max(4, round(np.log2(rate * _WINDOW_SECONDS)))
    hop, window = size // 2, np.hanning(size)
    count = max(0, len(samples) - size) // hop + 1
    step = max(1, _AT_ONCE // size)
    for first in range(0, count, step):
        last = min(first + step, count) - 1
        part = samples[first * hop : last * hop + size].astype(np.float64) / FULL
        padded = np.pad(part, (0, max(0, size - len(part))))
        windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
        yield np.square(np.abs(np.fft.rfft(windows * window, axis=1)))


def spectrogram(samples: np.ndarray, rate: int, height: int, width: int) -> np.ndarray:
    """Return (height, width) uint8 from (n,) int16 samples: time from left to right, frequency from the bottom up.

    255 is the loudest place, 0 what is 80 dB or more below it.
    """
    levels = 10 * np.log10(power(samples, rate).T[::-1] + _FLOOR)
    shades = (levels - levels.max() + _SHOWN).clip(0) * 255 / _SHOWN
    return np.asarray(Picture.fromarray(shades.astype(np.uint8)).resize((width, height)))


def fingerprint(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return (BANDS * STEPS,) float32: the level of each band in each step, each band's mean taken off.

    Silence at both ends does not count, nor do loudness, rate and small losses of coding; another beginning does.
    """
    found = [(part.sum(axis=1), _bands(part, rate)) for part in _powers(samples, rate)]
    loudness, bands = (np.concatenate(parts) for parts in zip(*found, strict=True))
    loud = np.flatnonzero(loudness > _QUIET * loudness.max(initial=0.0))
    if not len(loud):
        return np.zeros(BANDS * STEPS, np.float32)
    bands = bands[loud[0] : loud[-1] + 1]
    places = np.linspace(0, len(bands), STEPS + 1)
    starts, ends = places[:-1].astype(int), np.maximum(np.ceil(places[1:]).astype(int), places[:-1].astype(int) + 1)
    steps = np.stack([bands[low:high].mean(axis=0) for low, high in zip(starts, ends, strict=True)])
    levels = np.log(steps + _HEARD * steps.max())
    mark: np.ndarray = (levels - levels.mean(axis=0)).astype(np.float32).reshape(-1)
    return mark


def _bands(powers: np.ndarray, rate: int) -> np.ndarray:
    """Return (windows, BANDS): the mean power of each band in (windows, frequencies)."""
    edges = np.geomspace(_LOWEST, rate / 2, BANDS + 1) / (rate / 2) * (powers.shape[1] - 1)
    first = edges[:-1].astype(int)
    last = np.maximum(edges[1:].astype(int), first + 1)
    return np.stack([powers[:, low:high].mean(axis=1) for low, high in zip(first, last, strict=True)], axis=1)
