"""Spots of images: drawn where there is something to see, found again in warped views, and looked up in maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from graftline.learning.augment import Changes

_CANDIDATES = 4
"""Spots that are drawn for each one that is taken: some are not in all views, and some where nothing is."""
_AROUND = 9
"""Height and width of what is looked at around a spot, in pixels."""


class Spots(NamedTuple):
    """The same spots of some images, -1 to 1 from edge to edge as (x, y): in each view, and in the image itself."""

    views: tuple[torch.Tensor, ...]
    """(n, spots, 2) of each view."""
    seen: torch.Tensor
    """(n, spots) bool: whether it is in all views; the others do not count."""
    places: torch.Tensor
    """(n, spots, 2)."""


def common(images: torch.Tensor, views: Sequence[Changes], count: int, draws: torch.Generator) -> Spots:
    """Return `count` spots of each of (n, channels, height, width) images that all its views show.

    They are drawn evenly over the first view; of several the ones around which shades vary most are taken.
    """
    first, *others = views
    here = torch.rand(len(images), _CANDIDATES * count, 2, generator=draws) * 2 - 1
    spot = here @ first.maps[:, :, :2].mT + first.maps[:, None, :, 2]
    there = [(spot - view.maps[:, None, :, 2]) @ torch.linalg.inv(view.maps[:, :, :2]).mT for view in others]
    seen = torch.stack([(each.abs() < 1).all(dim=2) for each in (spot, *there)]).all(dim=0)
    column, row = pixels_at(spot, images.shape).unbind(dim=2)
    varies = _deviation(images).flatten(1).gather(1, row * images.shape[3] + column)
    chosen = torch.where(seen, varies, -1).argsort(dim=1, descending=True, stable=True)[:, :count]
    at = chosen[..., None].expand(-1, -1, 2)
    return Spots(tuple(each.gather(1, at) for each in (here, *there)), seen.gather(1, chosen), spot.gather(1, at))


def pixels_at(spots: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return (n, spots, 2) int64: the pixels, as (x, y), at (n, spots, 2) of images of a shape, or nearest to them."""
    sides = torch.tensor([shape[3], shape[2]], device=spots.device)
    return ((spots + 1) * sides / 2).floor().long().clamp(min=0).minimum(sides - 1)


def _deviation(images: torch.Tensor) -> torch.Tensor:
    """Return (n, 1, height, width): the standard deviation of the shades around each pixel."""

    def mean(shades: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(shades, _AROUND, stride=1, padding=_AROUND // 2, count_include_pad=False)

    grey = images.mean(dim=1, keepdim=True)
    return (mean(grey.square()) - mean(grey).square()).clamp(min=0).sqrt()


def looked_up(features: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return (n, spots, features): what (n, features, rows, columns) say at (n, spots, 2), between places in line.

    A product with weights, since `grid_sample` has no deterministic gradient on GPUs.
    """
    weights = [_between(at[..., axis], features.shape[3 - axis]) for axis in (1, 0)]
    both = weights[0][..., :, None] * weights[1][..., None, :]
    return both.flatten(2).to(features.dtype) @ features.flatten(2).mT


def _between(at: torch.Tensor, places: int) -> torch.Tensor:
    """Return (n, spots, places) weights of the two places that each of (n, spots) lies between."""
    near = ((at + 1) * places / 2 - 0.5).clamp(0, places - 1)
    return (1 - (near[..., None] - torch.arange(places, device=at.device)).abs()).clamp(min=0)
