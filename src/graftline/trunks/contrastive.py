"""Contrastive: of all images of a batch, find the other view of the same one.

Two views of each image, warped and recoloured each in its own way, become two vectors; a vector must be nearer to the
other of its pair than to those of all other images (SimCLR; Chen et al., 2020, arXiv:2002.05709). Where several images
show one thing, the second view is of one drawn from them, and all views of that thing in the batch are to be found (as
Azizi et al., 2021, arXiv:2101.05224, pair pictures of one patient).
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
from graftline.trunks.image_pool import Pool
from graftline.trunks.image_trunk import ImageTrunk
from graftline.trunks.plots import image_rows


def projector(width: int, length: int) -> nn.Sequential:
    """Return untrained layers from (n, width) features to (n, length) vectors that are compared."""
    return nn.Sequential(nn.GELU(), nn.Linear(width, width), BatchNorm1d(width), nn.GELU(), nn.Linear(width, length))


class Contrastive(ImageObjective):
    """A trunk, and two layers that turn its embedding into the vectors that are compared."""

    _params: ContrastiveParams

    def __init__(self, trunk: ImageTrunk, params: ContrastiveParams, dtype: str) -> None:
        super().__init__(trunk, params, dtype)
        self.projector = projector(trunk.width, params.projection)

    @property
    def head(self) -> nn.Module:
        return self.projector

    @property
    def grouped(self) -> bool:
        return self._params.group is not None

    def views(
        self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None, others: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Return two views of (n, channels, height, width) CPU pixels; with `part`, of this process's share.

        The second view is of `others`, if they are given: for each image another of the same thing.
        """
        mine, place, how = part or World(), next(self.parameters()).device, self._params.augmentation
        return [
            augment(send(share(images, mine), place), how, generator(seed, step, name), len(pixels), mine)
            for name, images in (("first", pixels), ("second", pixels if others is None else others))
        ]

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of finding each view's other one among all other views of the batch."""
        views = self.views(pixels, seed, step, part)
        return self._compared(views, torch.arange(len(pixels)), part or World())

    def loss_in(
        self, pool: Pool, chosen: torch.Tensor, seed: int, step: int, part: World | None = None
    ) -> torch.Tensor:
        """Return that loss of a pool's images; in groups, of finding all views of the same group, each as likely."""
        if pool.groups is None:
            return super().loss_in(pool, chosen, seed, step, part)
        others = pool.images(pool.companions(chosen, generator(seed, step, "companion")))
        views = self.views(pool.images(chosen), seed, step, part, others)
        return self._compared(views, pool.groups[chosen], part or World())

    def _compared(self, views: list[torch.Tensor], groups: torch.Tensor, part: World) -> torch.Tensor:
        """Return this process's addend of the loss: `views` are its own, `groups` the (n,) of the whole batch.

        With several views to find it is that of Khosla et al., 2020, arXiv:2004.11362, equation 2.
        """
        n = len(groups)
        with autocast(self._dtype, views[0].device):
            vectors = self.projector(self.trunk(torch.cat(views)))
        own = nn.functional.normalize(vectors.float(), dim=1)
        first, second = (gathered(half, n, part) for half in own.chunk(2))
        mine = share(torch.arange(n), part)
        places = torch.cat([mine, mine + n])  # among all 2n views
        likeness = own @ torch.cat([first, second]).T / self._params.temperature
        itself = send(torch.arange(2 * n) == places[:, None], own.device)
        likeness = likeness.masked_fill(itself, torch.finfo(likeness.dtype).min)  # a view is not compared with itself
        alike = send(groups.repeat(2) == groups.repeat(2)[places, None], own.device) & ~itself
        wanted = alike / alike.sum(dim=1, keepdim=True)
        return nn.functional.cross_entropy(likeness, wanted) * (len(mine) / n)

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        first, second = (views.cpu() for views in self.views(pixels, seed, 0))
        image_rows({"image": pixels, "one view": first, "another": second}, folder / "views.png")
