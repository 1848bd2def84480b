"""Autoencoder: squeeze an image through a narrow embedding and paint it again (Hinton and Salakhutdinov, 2006).

Masked autoencoder: paint an image of which most patches are hidden (He et al., 2021, arXiv:2111.06377).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from graftline.learning.augment import augment
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.trunks.conv.parameters import AutoencoderParams, MaskedAutoencoderParams
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.masks import seen_squares
from graftline.trunks.plots import image_rows


class Pictures(NamedTuple):
    """What goes in, what comes out and what should have come out: each (n, channels, height, width), 0 to 1."""

    shown: torch.Tensor
    painted: torch.Tensor
    original: torch.Tensor


class Reconstruction(ImageObjective):
    """The autoencoder: paints the image as it was before it was warped and, in a subclass, hidden in part.

    To paint the unwarped image, the embedding must say what the image shows, not where: a denoising autoencoder
    (Vincent et al., 2008) whose noise is the warp.
    """

    def __init__(self, trunk: ConvTrunk, params: AutoencoderParams | MaskedAutoencoderParams, dtype: str) -> None:
        super().__init__(trunk, params, dtype)
        channels, rows, columns = trunk.grid
        low, middle, high = trunk.params.channels[0], trunk.params.channels[1], channels
        self.decoder = nn.Sequential(
            nn.Linear(trunk.params.width, high * rows * columns),
            nn.GELU(),
            nn.Unflatten(1, (high, rows, columns)),
            nn.ConvTranspose2d(high, middle, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(middle, low, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(low, trunk.in_channels, 4, stride=2, padding=1),
        )

    @property
    def head(self) -> nn.Module:
        return self.decoder

    def hide(self, pixels: torch.Tensor, draw: torch.Generator, count: int, part: World) -> torch.Tensor:
        """Return what the trunk may see of (n, channels, height, width) pixels, this process's share of `count`."""
        return pixels

    def pictures(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> Pictures:
        """Return the pictures for (n, channels, height, width) CPU pixels; warp and mask are those of (seed, step).

        With `part`, those of this process's share.
        """
        mine = part or World()
        place = next(self.parameters()).device
        original, count = send(share(pixels, mine), place), len(pixels)
        warped = augment(original, self._params.augmentation, generator(seed, step, "augment"), count, mine)
        shown = self.hide(warped, generator(seed, step, "hide"), count, mine)
        height, width = pixels.shape[2:]
        with autocast(self._dtype, place):
            painted = self.decoder(self.trunk(shown))
        return Pictures(shown, painted[..., :height, :width].float(), original)

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean squared error per pixel and channel."""
        _, painted, original = self.pictures(pixels, seed, step, part)
        return nn.functional.mse_loss(painted, original) * (len(original) / len(pixels))

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        found = self.pictures(pixels, seed, 0)
        rows = zip(("seen", "painted", "original"), (images.cpu() for images in found), strict=True)
        image_rows(dict(rows), folder / "reconstructions.png")


class MaskedReconstruction(Reconstruction):
    """The masked autoencoder: hides a random share of square patches from the trunk."""

    def hide(self, pixels: torch.Tensor, draw: torch.Generator, count: int, part: World) -> torch.Tensor:
        seen, _ = seen_squares(pixels, self._params.patch, self._params.mask_ratio, draw, count, part)
        return pixels * seen
