"""Masked image modelling: paint the squares that were hidden (SimMIM: Xie et al., 2022, arXiv:2111.09886).

It works on transformers and on convolutions alike: what is hidden gets the mean colour (Li et al., 2023,
arXiv:2205.13943) and is no token of its own. Unlike there, the pooled embedding is asked too. It is what heads stand
on, and a vit's class token would otherwise learn nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from graftline.learning.augment import augment
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.masks import seen_squares
from graftline.trunks.plots import image_rows
from graftline.trunks.vision.parameters import MaskedImageParams
from graftline.trunks.vision.trunk import VisionTrunk


class Painter(nn.Module):
    """Paints an image block by block: each from its own features and from the whole image's embedding."""

    def __init__(self, trunk: VisionTrunk) -> None:
        super().__init__()
        self._channels, self._shape = len(trunk.scale.mean), trunk.shape
        with torch.no_grad():
            embedded, features = trunk.eval().look(
                torch.zeros(1, self._channels, *trunk.shape, device=trunk.mean.device)
            )
        trunk.train()
        rows, columns = features.shape[2:]
        self._block = -(-trunk.shape[0] // rows), -(-trunk.shape[1] // columns)
        size = self._channels * self._block[0] * self._block[1]
        self.place = nn.Conv2d(features.shape[1], size, 1)
        self.whole = nn.Linear(embedded.shape[1], size, bias=False)

    def forward(self, embedded: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return (n, channels, height, width) of (n, width) and (n, features, rows, columns)."""
        blocks = self.place(features) + self.whole(embedded)[..., None, None]
        apart = blocks.unflatten(1, (self._channels, *self._block))  # (n, channels, high, wide, rows, columns)
        whole = apart.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        painted: torch.Tensor = whole[..., : self._shape[0], : self._shape[1]]
        return painted


class MaskedImage(ImageObjective):
    """A trunk, and the decoder that paints what was hidden of its images."""

    trunk: VisionTrunk
    _params: MaskedImageParams

    def __init__(self, trunk: VisionTrunk, params: MaskedImageParams, dtype: str) -> None:
        super().__init__(trunk, params, dtype)
        self.decoder = Painter(trunk)

    @property
    def head(self) -> nn.Module:
        return self.decoder

    def _painted(
        self, pixels: torch.Tensor, seed: int, step: int, part: World
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Return the warped images, which of their pixels are seen, what is shown and painted, and how many are hidden.

        What is painted is in the model's scale, the rest from 0 to 1; all are this process's share.
        """
        place, count = self.trunk.mean.device, len(pixels)
        mine = send(share(pixels, part), place)
        warped = augment(mine, self._params.augmentation, generator(seed, step, "augment"), count, part)
        draw = generator(seed, step, "hide")
        seen, hidden = seen_squares(warped, self._params.patch, self._params.mask_ratio, draw, count, part)
        shown = warped * seen + self.trunk.mean * (1 - seen)
        with autocast(self._dtype, place):
            painted = self.decoder(*self.trunk.look(shown)).float()
        return warped, seen, shown, painted, hidden

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean error of a hidden pixel and channel, a scalar; with `part`, this process's addend of it."""
        warped, seen, _, painted, hidden = self._painted(pixels, seed, step, part or World())
        error = (painted - self.trunk.scaled(warped)).abs() * (1 - seen)
        return error.sum() / max(1, hidden * error.shape[1])

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        warped, _, shown, painted, _ = self._painted(pixels, seed, 0, World())
        shades = (painted * self.trunk.deviation + self.trunk.mean).clip(0, 1)
        rows = {"seen": shown, "painted": shades, "original": warped}
        image_rows({name: images.cpu() for name, images in rows.items()}, folder / "reconstructions.png")
