"""How loud a clip is, and what it looks like: the levels of its frequencies over time."""

from __future__ import annotations

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


def level(samples: np.ndarray) -> float:
    """Return the root mean square of (n,) int16 samples, in dB below full scale; -inf of none, or of zeros alone."""
    if not len(samples):
        return -np.inf
    power = float(np.square(samples.astype(np.int64)).sum()) / len(samples) / FULL**2
    return 10 * float(np.log10(power)) if power else -np.inf


def power(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return (windows, frequencies) float64: the power of each frequency in windows of 32 ms, half of each shared."""
    size = 1 << max(4, round(np.log2(rate * _WINDOW_SECONDS)))
    padded = np.pad(samples.astype(np.float64) / FULL, (0, max(0, size - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    found: np.ndarray = np.square(np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)))
    return found


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
    whole = power(samples, rate)
    loud = np.flatnonzero(whole.sum(axis=1) > _QUIET * whole.sum(axis=1).max(initial=0.0))
    if not len(loud):
        return np.zeros(BANDS * STEPS, np.float32)
    heard = whole[loud[0] : loud[-1] + 1]
    edges = np.geomspace(_LOWEST, rate / 2, BANDS + 1) / (rate / 2) * (whole.shape[1] - 1)
    first = edges[:-1].astype(int)
    last = np.maximum(edges[1:].astype(int), first + 1)
    bands = np.stack([heard[:, low:high].mean(axis=1) for low, high in zip(first, last, strict=True)], axis=1)
    places = np.linspace(0, len(bands), STEPS + 1)
    starts, ends = places[:-1].astype(int), np.maximum(np.ceil(places[1:]).astype(int), places[:-1].astype(int) + 1)
    steps = np.stack([bands[low:high].mean(axis=0) for low, high in zip(starts, ends, strict=True)])
    levels = np.log(steps + _HEARD * steps.max())
    found: np.ndarray = (levels - levels.mean(axis=0)).astype(np.float32).reshape(-1)
    return found
