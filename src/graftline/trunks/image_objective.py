"""What every objective on images is: a loss around a trunk, with layers of its own, and a picture of what it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftline.learning.distributed import World
from graftline.trunks.image_pool import Pool
from graftline.trunks.image_trunk import ImageTrunk


class ImageObjective(nn.Module, ABC):
    """A trunk and what it learns from, on images alone."""

    trunk: ImageTrunk

    def __init__(self, trunk: ImageTrunk, params: Any, dtype: str) -> None:
        """Stand around a trunk; `dtype` is `float32` or `bfloat16`."""
        super().__init__()
        self.trunk, self._params, self._dtype = trunk, params, dtype

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """What it learns besides the trunk."""

    @property
    def grouped(self) -> bool:
        """Whether it needs to know which images show one thing, which `loss` is not told."""
        return False

    @abstractmethod
    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the loss of (n, channels, height, width) CPU pixels, a scalar; with `part`, this process's addend.

        What is drawn is that of (seed, step).
        """

    def loss_in(
        self, pool: Pool, chosen: torch.Tensor, seed: int, step: int, part: World | None = None
    ) -> torch.Tensor:
        """Return the loss of the images at the (n,) places `chosen` of a pool, as `loss` does."""
        return self.loss(pool.images(chosen), seed, step, part)

    @abstractmethod
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        """Write a picture into the folder: what the objective makes of some images."""
