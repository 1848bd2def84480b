"""Which squares of images an objective hides."""

from __future__ import annotations

import torch

from graftline.learning.device import send
from graftline.learning.distributed import World, share


def seen_squares(
    pixels: torch.Tensor, patch: int, ratio: float, draw: torch.Generator, count: int, part: World
) -> tuple[torch.Tensor, int]:
    """Return which of (n, channels, height, width) pixels are seen, and how many are hidden in all `count` images.

    Squares of `patch` by `patch` pixels are hidden each by itself, with probability `ratio`; they are drawn for all
    images of a step, of which `pixels` are this process's share.

    Returns:
        (n, 1, height, width) float32, 1 where a pixel is seen and 0 where it is hidden; and the number of zeros in the
        masks of all images together.
    """
    height, width = pixels.shape[2:]
    rows, columns = -(-height // patch), -(-width // patch)
    seen = (torch.rand(count, rows, columns, generator=draw) >= ratio).float()
    seen = seen.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None, :height, :width]
    return send(share(seen, part), pixels.device), int((1 - seen).sum())
