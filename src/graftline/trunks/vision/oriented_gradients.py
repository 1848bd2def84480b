"""Oriented gradients: of spots of a warped image, say how shades change around them in the image as it was.

What is to be told is a histogram of the directions of edges in each of some cells around the spot (N. Dalal and
B. Triggs, "Histograms of oriented gradients for human detection", CVPR 2005), as masked feature prediction tells it of
hidden patches (C. Wei et al., 2022, arXiv:2112.09133). It says of an object what it looks like, whatever light is on
it, and it is there from the first step on: nothing has to be told apart from other images first.

Cells near each other say nearly the same, and most of what varies is where ink is at all. So what is told are the
histograms' principal components, each over its deviation: what tells one shape from another counts as much as that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from graftline.learning.augment import Changes, draw
from graftline.learning.batch_norm import BatchNorm1d
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.image_pool import Pool
from graftline.trunks.plots import image_rows
from graftline.trunks.vision.parameters import OrientedGradientsParams
from graftline.trunks.vision.spots import common, looked_up, pixels_at
from graftline.trunks.vision.trunk import VisionTrunk

DIRECTIONS = 8
"""Of edges, all around: from dark to light is another one than from light to dark."""
_FAINT = 0.02
"""Length of the histograms around a spot that is hardly more than noise, of pixels from 0 to 1."""
TOLD = 96
"""Numbers that are told, at most: along the others histograms hardly vary."""
_RIDGE = 0.0025
"""Of the largest variance, added to each one: what hardly varies is not told to the last digit."""
_SAMPLE = 400
"""Images of a pool that say how histograms vary."""
_AT_ONCE = 32
"""Of them: eight maps of each are in memory."""


def histograms(images: torch.Tensor, cell: int) -> torch.Tensor:
    """Return (n, DIRECTIONS, height, width): how strong edges of each direction are in the cell around each pixel.

    Args:
        images: (n, channels, height, width), of which the mean over channels counts.
        cell: height and width of a cell, in pixels.
    """
    grey = F.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    along = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]) / 2
    down = (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]) / 2
    angle = torch.atan2(down, along) / (2 * math.pi) * DIRECTIONS % DIRECTIONS
    apart = (angle[:, None] - torch.arange(DIRECTIONS, device=images.device)[:, None, None]).abs()
    shares = (1 - torch.minimum(apart, DIRECTIONS - apart)).clamp(min=0)  # an edge is of the two directions it is near
    strength = torch.hypot(along, down)[:, None] * shares
    before = cell // 2
    return F.avg_pool2d(F.pad(strength, (before, cell - 1 - before) * 2), cell, stride=1)


def described(images: torch.Tensor, places: torch.Tensor, cells: int, cell: int) -> torch.Tensor:
    """Return (n, spots, cells * cells * DIRECTIONS): what edges there are in cells around spots, of length below 1.

    Args:
        images: (n, channels, height, width) pixels from 0 to 1.
        places: (n, spots, 2) from -1 to 1.
        cells: around a spot, in each row and in each column; what is of none of the image's pixels has no edges.
        cell: height and width of a cell, in pixels.
    """
    height, width = images.shape[2:]
    offsets = ((torch.arange(cells, device=places.device) - (cells - 1) / 2) * cell).floor().long()
    column, row = pixels_at(places, images.shape).unbind(dim=2)
    columns, rows = column[..., None, None] + offsets, row[..., None, None] + offsets[:, None]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    at = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1)
    found = histograms(images, cell).flatten(2).gather(2, at[:, None].expand(-1, DIRECTIONS, -1))
    found = found.unflatten(2, inside.shape[1:]) * inside[:, None]
    strength = found.permute(0, 2, 3, 4, 1).flatten(2).sqrt()
    told: torch.Tensor = strength / (strength.norm(dim=2, keepdim=True) + _FAINT)
    return told


class Scale(NamedTuple):
    """How histograms are told: as what they are away from the mean, in the directions in which they vary most."""

    mean: torch.Tensor
    """(k,)."""
    directions: torch.Tensor
    """(k, TOLD), each divided by how much they vary along it: what is told varies alike in all, each by itself."""

    def of(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return (..., TOLD) of (..., k) numbers."""
        return (numbers - self.mean) @ self.directions


def scale_of(numbers: torch.Tensor) -> Scale:
    """Return the scale of (m, k) histograms on the CPU: their principal components, whitened."""
    mean = numbers.sum(dim=0) / max(1, len(numbers))
    away = (numbers - mean).double()
    variances, directions = torch.linalg.eigh(away.T @ away / max(1, len(numbers)))  # the least variance first
    ridge = _RIDGE * variances[-1].clamp(min=1e-6)
    scaled = directions[:, -TOLD:] / (variances[-TOLD:].clamp(min=0) + ridge).sqrt()
    return Scale(mean, scaled.float())


class OrientedGradients(ImageObjective):
    """A trunk, and layers that turn what all its maps say of a spot into the histograms around it."""

    trunk: VisionTrunk
    _params: OrientedGradientsParams

    def __init__(self, trunk: VisionTrunk, params: OrientedGradientsParams, dtype: str) -> None:
        super().__init__(trunk, params, dtype)
        width, hidden = trunk.spot_width(), params.hidden
        told = min(TOLD, params.cells**2 * DIRECTIONS)
        self._scale: Scale | None = None
        self.teller = nn.Sequential(nn.Linear(width, hidden), BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, told))

    @property
    def head(self) -> nn.Module:
        return self.teller

    def _view(self, pixels: torch.Tensor, seed: int, step: int, part: World) -> tuple[torch.Tensor, Changes]:
        how, place = self._params.augmentation, next(self.parameters()).device
        changes = draw(how, generator(seed, step, "view"), len(pixels), pixels.shape[1:])
        return changes.apply(send(share(pixels, part), place), how.edge, part), changes

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean squared error of what is told of spots, on the scale of these images: about 1 at first."""
        return self._loss(pixels, self._scale_of(pixels.split(_AT_ONCE)), seed, step, part or World())

    def loss_in(
        self, pool: Pool, chosen: torch.Tensor, seed: int, step: int, part: World | None = None
    ) -> torch.Tensor:
        """Return that error on the scale of some images of the pool.

        They are the same ones in all steps and with each seed: what is told beside a head goes on with the layers that
        pretraining ended with, and these say it on the scale that pretraining had.
        """
        if self._scale is None:
            sample = torch.randperm(len(pool), generator=generator(0, 0, "scale"))[:_SAMPLE]
            self._scale = self._scale_of(pool.images(part) for part in sample.split(_AT_ONCE))
        return self._loss(pool.images(chosen), self._scale, seed, step, part or World())

    def _scale_of(self, parts: Iterable[torch.Tensor]) -> Scale:
        """Return the scale of some images, which come in parts: all of them would be large."""
        draws, found = generator(0, 0, "scale of spots"), []
        for pixels in parts:
            still = Changes(torch.eye(2, 3).expand(len(pixels), 2, 3), None)
            places = common(pixels, [still], self._params.spots, draws).places
            found.append(described(pixels, places, self._params.cells, self._params.cell))
        return scale_of(torch.cat(found).flatten(0, 1))

    def _loss(self, pixels: torch.Tensor, scale: Scale, seed: int, step: int, part: World) -> torch.Tensor:
        params = self._params
        view, changes = self._view(pixels, seed, step, part)
        spots = common(pixels, [changes], params.spots, generator(seed, step, "spots"))
        at, seen = (share(each, part) for each in (spots.views[0], spots.seen))
        wanted = scale.of(described(share(pixels, part), share(spots.places, part), params.cells, params.cell))
        place = view.device
        with autocast(self._dtype, place):
            said = torch.cat([looked_up(features, send(at, place)) for features in self.trunk.maps(view)], dim=2)
            told = self.teller(said.flatten(0, 1)).float()
        error: torch.Tensor = (told - send(wanted.flatten(0, 1), place)).square().mean(dim=1)
        return (error * send(seen.flatten(), place)).sum() / max(1, int(spots.seen.sum()))

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        view, _ = self._view(pixels, seed, 0, World())
        strength = histograms(pixels, self._params.cell)
        edges = (strength.sum(dim=1, keepdim=True) / strength.sum(dim=1).amax().clamp(min=1e-6)).sqrt()
        image_rows({"image": pixels, "its edges": edges, "view": view.cpu()}, folder / "views.png")
