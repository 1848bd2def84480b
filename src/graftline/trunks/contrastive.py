"""Contrastive: of all images of a batch, find the other view of the same one.

Two views of each image, warped and recoloured each in its own way, become two vectors; a vector must be nearer to the
other of its pair than to those of all other images (SimCLR; Chen et al., 2020, arXiv:2002.05709).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from graftline.learning.augment import augment
from graftline.learning.batch_norm import BatchNorm1d
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.learning.sharing import gathered
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.image_trunk import ImageTrunk
from graftline.trunks.plots import image_rows


class Contrastive(ImageObjective):
    """A trunk, and two layers that turn its embedding into the vectors that are compared."""

    def __init__(self, trunk: ImageTrunk, params: ContrastiveParams, dtype: str) -> None:
        super().__init__()
        self.trunk, self._params, self._dtype = trunk, params, dtype
        width = trunk.width
        self.projector = nn.Sequential(
            nn.GELU(), nn.Linear(width, width), BatchNorm1d(width), nn.GELU(), nn.Linear(width, params.projection)
        )

    @property
    def head(self) -> nn.Module:
        return self.projector

    def views(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> list[torch.Tensor]:
        """Return two views of (n, channels, height, width) CPU pixels; with `part`, of this process's share."""
        mine, place = part or World(), next(self.parameters()).device
        images, how = send(share(pixels, mine), place), self._params.augmentation
        return [augment(images, how, generator(seed, step, name), len(pixels), mine) for name in ("first", "second")]

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of finding each view's other one among all other views of the batch."""
        part, n = part or World(), len(pixels)
        views = self.views(pixels, seed, step, part)
        with autocast(self._dtype, views[0].device):
            vectors = self.projector(self.trunk(torch.cat(views)))
        own = nn.functional.normalize(vectors.float(), dim=1)
        first, second = (gathered(half, n, part) for half in own.chunk(2))
        mine = share(torch.arange(n, device=own.device), part)
        places = torch.cat([mine, mine + n])
        likeness = own @ torch.cat([first, second]).T / self._params.temperature
        likeness[torch.arange(len(own)), places] = -torch.inf  # a view is not compared with itself
        return nn.functional.cross_entropy(likeness, (places + n) % (2 * n)) * (len(mine) / n)

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        first, second = (views.cpu() for views in self.views(pixels, seed, 0))
        image_rows({"image": pixels, "one view": first, "another": second}, folder / "views.png")


def build(trunk: ImageTrunk, params: ContrastiveParams, dtype: str) -> Contrastive:
    """Return the objective around `trunk`."""
    return Contrastive(trunk, params, dtype)
