"""8 ways to spoil clips of sound, as rooms, microphones and lines do.

What is said and by whom stays: nothing is faster, higher or cut off, and a clip keeps its length. Levels of noise are
in dB below the clip's own root mean square. Each severity spoils the same places more than the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, resample_poly

Sound = NDArray[np.float64]
"""(samples,); 1 is full scale."""
Draw = np.random.Generator

_NOISE = (25.0, 20.0, 15.0, 10.0, 5.0)
"""Signal to noise, in dB; Aurora 2, the task of noisy digits, has 20 to -5 (H. Hirsch and D. Pearce, ASR 2000)."""
_LINE = 8000
"""Samples a second of a telephone line, ITU-T G.711."""
_BAND = (300.0, 3400.0)
"""Hertz that such a line carries, ITU-T G.712."""
_ORDER = 8
"""Of the band's slopes: 48 dB an octave."""


def white_noise(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    return _with(sound, draw.normal(size=len(sound)), _NOISE[level])


def pink_noise(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """Noise whose power falls by frequency, as that of many voices and machines does."""
    spectrum = np.fft.rfft(draw.normal(size=len(sound)))
    steps = np.arange(len(spectrum))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(steps, 1)) * (steps > 0), len(sound))
    return _with(sound, pink, _NOISE[level])


def hum(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """Mains of 50 or 60 Hz, and three of its harmonics."""
    mains, phases = draw.choice([50.0, 60.0]), draw.uniform(0, 2 * np.pi, 4)
    turns = 2 * np.pi * mains * np.arange(len(sound)) / rate
    tones = [np.sin(turns * (place + 1) + phase) / (place + 1) for place, phase in enumerate(phases)]
    return _with(sound, np.sum(tones, axis=0), (20.0, 15.0, 10.0, 5.0, 0.0)[level])


def reverberation(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """A room, as loud as before: noise that decays by 60 dB in so many seconds (J.-D. Polack, Le Mans, 1988)."""
    seconds, direct = ((0.2, 9.0), (0.4, 6.0), (0.6, 3.0), (0.9, 0.0), (1.3, -3.0))[level]  # dB above the reflections
    times = np.arange(1, int(seconds * rate)) / rate
    tail = draw.normal(size=len(times)) * np.exp(-3 * math.log(10) * times / seconds)
    tail *= 10 ** (-direct / 20) / np.linalg.norm(tail)
    heard = fftconvolve(sound, np.r_[1.0, tail])[: len(sound)]
    found: Sound = heard * (_rms(sound) / (_rms(heard) or 1.0))
    return found


def telephone(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """The band of a telephone, 8,000 samples a second, companded by G.711's mu-law to 8 bits and to fewer."""
    steps = 2 ** (7 - level) - 1  # on each side of zero
    common = math.gcd(rate, _LINE)
    heard = sound if rate == _LINE else resample_poly(sound, _LINE // common, rate // common)
    spectrum, frequencies = np.fft.rfft(heard), np.maximum(np.fft.rfftfreq(len(heard), 1 / _LINE), 1e-9)
    low, high = _BAND
    with np.errstate(over="ignore"):
        slopes = (1 + (low / frequencies) ** (2 * _ORDER)) * (1 + (frequencies / high) ** (2 * _ORDER))
    heard = np.fft.irfft(spectrum / np.sqrt(slopes), len(heard)).clip(-1, 1)
    companded = np.rint(np.sign(heard) * np.log1p(255 * np.abs(heard)) / math.log(256) * steps) / steps
    heard = np.sign(companded) * np.expm1(np.abs(companded) * math.log(256)) / 255
    if rate != _LINE:
        heard = resample_poly(heard, rate // common, _LINE // common)
    return np.pad(heard, (0, max(0, len(sound) - len(heard))))[: len(sound)]


def lost_packets(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """Silence for some of the packets of 20 ms."""
    size = max(1, rate // 50)
    lost = draw.random(-(-len(sound) // size)) < (0.03, 0.06, 0.1, 0.2, 0.3)[level]
    found: Sound = np.where(np.repeat(lost, size)[: len(sound)], 0.0, sound)
    return found


def clipping(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """An amplifier that is overdriven: its loudest samples are cut off, at the peak that the clip had."""
    loud = np.abs(sound)
    limit = float(np.quantile(loud, 1 - (0.02, 0.05, 0.1, 0.2, 0.35)[level]))
    return sound.clip(-limit, limit) * (float(loud.max()) / limit) if limit else sound


def quiet(sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """6 to 30 dB less: what lay near the last of the 16 bits is lost."""
    found: Sound = sound * 10 ** (-6 * (level + 1) / 20)
    return found


Spoil = Callable[[Sound, Draw, int, int], Sound]
WAYS: dict[str, Spoil] = {
    way.__name__: way for way in (white_noise, pink_noise, hum, reverberation, telephone, lost_packets, clipping, quiet)
}


def spoil(name: str, sound: Sound, draw: Draw, level: int, rate: int) -> Sound:
    """Return the sound spoiled, from -1 to 1; `level` is the severity less 1, `rate` samples a second."""
    return np.clip(WAYS[name](sound, draw, level, rate), -1, 1)


def _with(sound: Sound, noise: Sound, ratio: float) -> Sound:
    """Return the sound with noise so many dB below it."""
    found: Sound = sound + noise * (_rms(sound) / (_rms(noise) or 1.0) * 10 ** (-ratio / 20))
    return found


def _rms(sound: Sound) -> float:
    return float(np.sqrt(np.mean(sound**2)))
