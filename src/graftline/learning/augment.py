"""Random small changes of grey images that leave what they show the same."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

from graftline.learning.parameters import Augmentation


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
