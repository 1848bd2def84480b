"""Random small changes of images that leave what they show the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.parameters import Augmentation

_CROP_ASPECT = math.log(4 / 3)
"""Largest stretch of what is cut out, as in Szegedy et al., 2015, arXiv:1409.4842."""
_PADDING = {"black": "zeros", "repeat": "border"}
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""From red, green and blue to brightness (first row) and the plane of colours."""


@dataclass(frozen=True)
class Changes:
    """What happens to each of some images."""

    maps: torch.Tensor
    """(n, 2, 3) affine maps from places in the new image to places in the old one, -1 to 1 from edge to edge."""
    colours: tuple[torch.Tensor, torch.Tensor] | None
    """(n, channels, channels) mixtures of channels and (n, 1, 1, 1) factors of contrast, if any."""

    def apply(self, pixels: torch.Tensor, edge: str, part: World | None = None) -> torch.Tensor:
        """Return the (n, channels, height, width) images, changed; with `part` they are this process's share."""
        mine = part or World()
        maps = send(share(self.maps, mine), pixels.device)
        grid = F.affine_grid(maps, list(pixels.shape), align_corners=False)
        warped = F.grid_sample(pixels, grid, padding_mode=_PADDING[edge], align_corners=False)
        if self.colours is None:
            return warped
        mixed, contrast = (send(share(each, mine), pixels.device) for each in self.colours)
        mean = warped.mean(dim=(2, 3), keepdim=True)
        return (mixed @ ((warped - mean) * contrast + mean).flatten(2)).view_as(warped).clamp(0, 1)


def draw(how: Augmentation, generator: torch.Generator, count: int, shape: Sequence[int]) -> Changes:
    """Return what happens to each of `count` images, whose `shape` is (channels, height, width)."""
    channels, height, width = shape
    maps = _maps(how, generator, count, height, width)
    return Changes(maps, _colours(how, generator, count, channels))


def augment(
    pixels: torch.Tensor,
    how: Augmentation,
    generator: torch.Generator,
    count: int | None = None,
    part: World | None = None,
) -> torch.Tensor:
    """Return (n, channels, height, width) images from 0 to 1, each warped and recoloured in its own way.

    With `part` the images are this process's share of `count`. What happens to an image is
    drawn for all of them, on the CPU.
    """
    drawn = draw(how, generator, len(pixels) if count is None else count, pixels.shape[1:])
    return drawn.apply(pixels, how.edge, part)


def _even(count: int, limit: float, generator: torch.Generator) -> torch.Tensor:
    """Return (count,) numbers drawn evenly from -limit to limit."""
    return (torch.rand(count, generator=generator) * 2 - 1) * limit


def _maps(how: Augmentation, generator: torch.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """Return (count, 2, 3) affine maps, from places in the new image to places in the old one."""
    angle, shear = _even(count, math.radians(how.rotation), generator), _even(count, how.shear, generator)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0], maps[:, 0, 1] = angle.cos() * (1 + _even(count, how.scale, generator)), shear - angle.sin()
    maps[:, 1, 0], maps[:, 1, 1] = angle.sin(), angle.cos() * (1 + _even(count, how.scale, generator))
    # affine_grid measures in half images: -1 is one edge, 1 the other
    maps[:, 0, 2] = _even(count, how.shift, generator) * 2 / width
    maps[:, 1, 2] = _even(count, how.shift, generator) * 2 / height
    if how.crop < 1:
        area = how.crop + (1 - how.crop) * torch.rand(count, generator=generator)
        stretch = _even(count, _CROP_ASPECT, generator).exp()  # sides of at most the image's
        sides = torch.stack([(area * stretch).sqrt(), (area / stretch).sqrt()], dim=1).clamp(max=1)
        places = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - sides)
        maps[:, :, 2] += (maps[:, :, :2] @ places[:, :, None])[:, :, 0]
        maps[:, :, :2] *= sides[:, None]
    if how.flip:
        mirrored = torch.rand(count, generator=generator) < how.flip
        maps[mirrored, :, 0] *= -1
    return maps


def _colours(
    how: Augmentation, generator: torch.Generator, count: int, channels: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return (count, channels, channels) mixtures of channels and (count, 1, 1, 1) factors of contrast, if any."""
    if not (how.brightness or how.contrast or how.saturation or how.hue or how.grey):
        return None
    bright = 1 + _even(count, how.brightness, generator)
    contrast = 1 + _even(count, how.contrast, generator)
    mixed = torch.eye(channels).expand(count, -1, -1)
    if channels == 3:
        saturation = 1 + _even(count, how.saturation, generator)
        saturation[torch.rand(count, generator=generator) < how.grey] = 0
        turn = _even(count, math.radians(how.hue), generator)
        mixed = _turned(saturation * turn.cos(), saturation * turn.sin())
    return mixed * bright[:, None, None], contrast[:, None, None, None]


def _turned(across: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """Return (n, 3, 3) maps of RGB that keep brightness and turn and stretch the plane of colours (YIQ's I and Q)."""
    plane = torch.zeros(len(across), 3, 3)
    plane[:, 0, 0] = 1
    plane[:, 1, 1], plane[:, 1, 2], plane[:, 2, 1], plane[:, 2, 2] = across, -along, along, across
    return _YIQ.inverse() @ plane @ _YIQ
