"""Random small changes of grey images that leave what they show the same."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field

from graftline.params import Params


class Augmentation(Params):
    """How far an image may be moved and warped, drawn evenly for each image and step."""

    shift: float = Field(default=2.0, ge=0, le=14)
    """Largest shift along each axis, in pixels."""
    rotation: float = Field(default=0.0, ge=0, le=45)
    """Largest rotation, in degrees."""
    scale: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest relative change of height and of width."""
    shear: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest shear, as the tangent of its angle."""


def augment(pixels: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Return (n, height, width) images, each warped by an affine map of its own; black enters at the edges."""
    count, height, width = pixels.shape

    def even(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, shear = even(math.radians(how.rotation)), even(how.shear)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0], maps[:, 0, 1] = angle.cos() * (1 + even(how.scale)), shear - angle.sin()
    maps[:, 1, 0], maps[:, 1, 1] = angle.sin(), angle.cos() * (1 + even(how.scale))
    # affine_grid measures in half images: -1 is one edge, 1 the other
    maps[:, 0, 2], maps[:, 1, 2] = even(how.shift) * 2 / width, even(how.shift) * 2 / height
    grid = F.affine_grid(maps, [count, 1, height, width], align_corners=False)
    return F.grid_sample(pixels[:, None], grid, align_corners=False)[:, 0]
