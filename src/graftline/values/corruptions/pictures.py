"""15 ways to spoil pictures, after D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019.

Theirs are made for 224 pixels, and in CIFAR-10-C for 32. Here the severities are given for 32 pixels, near those of
CIFAR-10-C, and every length in them (a radius, a way, a width) is multiplied by the picture's shorter side over 32;
noise, brightness, contrast, fog and the quality of JPEG have no length and are as they stand. Each severity spoils the
same places more than the one before. Frost and snow are computed, for no photographs of them are shipped.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Picture = NDArray[np.float64]
"""(height, width, channels), from 0 to 1."""
Draw = np.random.Generator


def gaussian_noise(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    return picture + draw.normal(size=picture.shape) * (0.04, 0.06, 0.08, 0.09, 0.10)[level]


def shot_noise(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    photons = (500, 250, 100, 75, 50)[level]  # that full brightness is counted by
    found: Picture = draw.poisson(picture * photons) / photons
    return found


def impulse_noise(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    hit, bright = draw.random(picture.shape), draw.random(picture.shape) < 0.5
    return np.where(hit < (0.01, 0.02, 0.03, 0.05, 0.07)[level], bright, picture)


def defocus_blur(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """Spread each pixel over a disc."""
    kernel = _disc((0.7, 1.0, 1.3, 1.7, 2.2)[level] * unit)
    found: Picture = ndimage.convolve(picture, kernel[:, :, None], mode="nearest")
    return found


def glass_blur(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """Take some pixels from nearby, between two slight blurs."""
    share = (0.15, 0.3, 0.5, 0.75, 1.0)[level]
    found, places = _smooth(picture, 0.4 * unit), np.indices(picture.shape[:2])
    most, hit = max(1, round(unit)), draw.random(picture.shape[:2]) < share
    moved = places + hit * draw.integers(-most, most + 1, places.shape)
    rows, columns = (np.clip(of, 0, side - 1) for of, side in zip(moved, picture.shape, strict=False))
    return _smooth(found[rows, columns], 0.4 * unit)


def motion_blur(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    return _moved(picture, draw.uniform(-45, 45), (2.0, 3.0, 4.0, 5.5, 7.0)[level] * unit)


def zoom_blur(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """The mean of the picture as a lens comes nearer."""
    most = (1.06, 1.11, 1.16, 1.21, 1.26)[level]
    zooms = np.linspace(1, most, 2 + int((most - 1) * max(picture.shape)))
    mean: Picture = np.mean([_zoomed(picture, float(zoom)) for zoom in zooms], axis=0)
    return mean


def snow(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """Flakes that fall aslant, and the paler light of a snowfall."""
    share, pale = ((0.04, 0.05), (0.07, 0.1), (0.1, 0.15), (0.14, 0.2), (0.18, 0.25))[level]
    field = _smooth(draw.normal(size=picture.shape[:2])[:, :, None], 0.5 * unit)
    flakes = _moved((field > np.quantile(field, 1 - share)).astype(np.float64), draw.uniform(-135, -45), 3 * unit)
    light = np.maximum(picture, 0.5 + 0.5 * picture.mean(axis=2, keepdims=True))
    snowed: Picture = picture * (1 - pale) + light * pale + flakes
    return snowed


def frost(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """Crystals on a pane: the ridges of a fractal."""
    kept, ice = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.45), (0.75, 0.55))[level]
    ridges = (1 - np.abs(2 * _plasma(picture.shape, draw, 1.5) - 1)) ** 2
    return kept * picture + ice * ridges


def fog(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    thick = (0.2, 0.5, 0.75, 1.0, 1.5)[level]
    most = max(float(picture.max()), 1e-6)
    return (picture + thick * _plasma(picture.shape, draw, 2.0)) * most / (most + thick)


def brightness(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """More of the V of HSV: all channels in proportion."""
    value = picture.max(axis=2, keepdims=True)
    brighter = np.minimum(value + (0.05, 0.1, 0.15, 0.2, 0.3)[level], 1)
    found: Picture = np.where(value > 0, picture / np.where(value > 0, value, 1), 1) * brighter
    return found


def contrast(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    mean = picture.mean(axis=(0, 1), keepdims=True)
    found: Picture = (picture - mean) * (0.75, 0.5, 0.4, 0.3, 0.15)[level] + mean
    return found


def elastic_transform(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    """Move each pixel by a smooth random field of so many pixels, root mean square."""
    fields = [ndimage.gaussian_filter(draw.uniform(-1, 1, picture.shape[:2]), 3 * unit, mode="reflect") for _ in "xy"]
    ways = [(0.4, 0.7, 1.0, 1.4, 1.8)[level] * unit * field / max(_rms(field), 1e-12) for field in fields]
    rows, columns = np.indices(picture.shape[:2]) + np.stack(ways)
    return _sampled(picture, rows, columns)


def pixelate(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    height, width = picture.shape[:2]
    share = (0.9, 0.75, 0.6, 0.5, 0.4)[level]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    parts = [Image.fromarray(part.astype(np.float32)) for part in picture.transpose(2, 0, 1)]
    coarse = [part.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX) for part in parts]
    return np.stack([np.asarray(part, np.float64) for part in coarse], axis=2)


def jpeg_compression(picture: Picture, draw: Draw, level: int, unit: float) -> Picture:
    whole, file = np.rint(picture * 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(whole[:, :, 0] if picture.shape[2] == 1 else whole).save(
        file, "JPEG", quality=(80, 65, 50, 35, 20)[level]
    )
    found: Picture = np.asarray(Image.open(file), np.float64).reshape(picture.shape) / 255
    return found


Spoil = Callable[[Picture, Draw, int, float], Picture]
WAYS: dict[str, Spoil] = {
    way.__name__: way
    for way in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, frost, fog,
        brightness, contrast, elastic_transform, pixelate, jpeg_compression,
    )
}  # fmt: skip


def spoil(name: str, picture: Picture, draw: Draw, level: int) -> Picture:
    """Return the picture spoiled, from 0 to 1; `level` is the severity less 1."""
    unit = min(picture.shape[:2]) / 32
    return np.clip(WAYS[name](picture, draw, level, unit), 0, 1)


def _smooth(picture: Picture, sigma: float) -> Picture:
    found: Picture = ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")
    return found


def _disc(radius: float) -> Picture:
    """Return how much of each pixel around a disc covers, by 5 x 5 points in it; all of it is 1."""
    reach = int(np.ceil(radius))
    fine = (np.arange((2 * reach + 1) * 5) - 5 * reach - 2) / 5
    inside = fine[:, None] ** 2 + fine**2 <= radius**2
    side = 2 * reach + 1
    covered: Picture = inside.reshape(side, 5, side, 5).mean(axis=(1, 3))
    kernel: Picture = covered / covered.sum()
    return kernel


def _moved(picture: Picture, angle: float, length: float) -> Picture:
    """Return the mean of the picture along a way of `length` pixels around each pixel."""
    steps = np.linspace(-length / 2, length / 2, 2 * int(np.ceil(length)) + 1)
    way = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle)), 0.0])
    shifted = partial(ndimage.shift, picture, order=1, mode="nearest")
    mean: Picture = np.mean([shifted(step * way) for step in steps], axis=0)
    return mean


def _zoomed(picture: Picture, zoom: float) -> Picture:
    height, width = picture.shape[:2]
    rows, columns = np.indices((height, width), np.float64)
    middle = (height - 1) / 2, (width - 1) / 2
    return _sampled(picture, (rows - middle[0]) / zoom + middle[0], (columns - middle[1]) / zoom + middle[1])


def _sampled(picture: Picture, rows: Any, columns: Any) -> Picture:
    """Return the picture's values at places between its pixels."""
    at = partial(ndimage.map_coordinates, coordinates=[rows, columns], order=1, mode="reflect")
    return np.stack([at(part) for part in picture.transpose(2, 0, 1)], axis=2)


def _plasma(shape: tuple[int, ...], draw: Draw, fall: float) -> Picture:
    """Return a (height, width, 1) fractal from 0 to 1: noise whose amplitude falls by frequency to this power."""
    height, width = shape[:2]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(draw.normal(size=(height, width))) / frequency**fall).real
    spread = field.max() - field.min()
    found: Picture = (field - field.min()) / (spread if spread > 0 else 1)
    return found[:, :, None]


def _rms(field: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(field**2)))
