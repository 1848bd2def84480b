"""Random small changes of images that leave what they show the same."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.parameters import Augmentation


def augment(
    pixels: torch.Tensor,
    how: Augmentation,
    generator: torch.Generator,
    count: int | None = None,
    part: World | None = None,
) -> torch.Tensor:
    """Return (n, channels, height, width) images, each warped by an affine map of its own; black enters at the edges.

    With `part` the images are this process's share of `count`. The maps are drawn for all of them, on the CPU.
    """
    count, (height, width) = len(pixels) if count is None else count, pixels.shape[2:]

    def even(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, shear = even(math.radians(how.rotation)), even(how.shear)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0], maps[:, 0, 1] = angle.cos() * (1 + even(how.scale)), shear - angle.sin()
    maps[:, 1, 0], maps[:, 1, 1] = angle.sin(), angle.cos() * (1 + even(how.scale))
    # affine_grid measures in half images: -1 is one edge, 1 the other
    maps[:, 0, 2], maps[:, 1, 2] = even(how.shift) * 2 / width, even(how.shift) * 2 / height
    maps = send(share(maps, part or World()), pixels.device)
    grid = F.affine_grid(maps, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)
