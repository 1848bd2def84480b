"""Dense contrastive: of all places of a batch's images, find the same one in the other view of its image.

Two views of each image, warped and recoloured each in its own way, are two maps of vectors. What one says of a spot
must be nearer to what the other says of the same spot than to what both say of all others, in this and in the other
images (DenseCL; Wang et al., 2021, arXiv:2011.09157). There spots are matched by what the maps say of them; here they
are known, since the warps are.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from graftline.learning.augment import Changes, draw
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.learning.sharing import gathered
from graftline.trunks.contrastive import projector
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.plots import image_rows
from graftline.trunks.vision.parameters import DenseContrastiveParams
from graftline.trunks.vision.trunk import VisionTrunk

_CANDIDATES = 4
"""Spots that are drawn for each one that is compared: some are seen in one view only."""


class Spots(NamedTuple):
    """Where the same spots of some images are in their two views, -1 to 1 from edge to edge as (x, y)."""

    first: torch.Tensor
    """(n, spots, 2)."""
    second: torch.Tensor
    """(n, spots, 2)."""
    seen: torch.Tensor
    """(n, spots) bool: whether it is in both views; the others do not count."""


def common(first: Changes, second: Changes, count: int, draws: torch.Generator) -> Spots:
    """Return `count` spots of each image that both views show, drawn evenly over the first."""
    n = len(first.maps)
    here = torch.rand(n, _CANDIDATES * count, 2, generator=draws) * 2 - 1
    spot = here @ first.maps[:, :, :2].mT + first.maps[:, None, :, 2]
    there = (spot - second.maps[:, None, :, 2]) @ torch.linalg.inv(second.maps[:, :, :2]).mT
    seen = ((spot.abs() < 1) & (there.abs() < 1)).all(dim=2)
    chosen = (~seen).int().argsort(dim=1, stable=True)[:, :count]
    at = chosen[..., None].expand(-1, -1, 2)
    return Spots(here.gather(1, at), there.gather(1, at), seen.gather(1, chosen))


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


class DenseContrastive(ImageObjective):
    """A trunk, and layers that turn what all its maps say of a spot into the vector that is compared."""

    trunk: VisionTrunk

    def __init__(self, trunk: VisionTrunk, params: DenseContrastiveParams, dtype: str) -> None:
        super().__init__()
        self.trunk, self._params, self._dtype = trunk, params, dtype
        with torch.no_grad():
            maps = trunk.eval().maps(torch.zeros(1, len(trunk.mean), *trunk.shape, device=trunk.mean.device))
        trunk.train()
        self.projector = projector(sum(features.shape[1] for features in maps), params.projection)

    @property
    def head(self) -> nn.Module:
        return self.projector

    def _views(
        self, pixels: torch.Tensor, seed: int, step: int, part: World
    ) -> tuple[list[torch.Tensor], tuple[Changes, Changes]]:
        how, count, place = self._params.augmentation, len(pixels), next(self.parameters()).device
        mine = send(share(pixels, part), place)
        first, second = (
            draw(how, generator(seed, step, name), count, pixels.shape[1:]) for name in ("first", "second")
        )
        return [changes.apply(mine, how.edge, part) for changes in (first, second)], (first, second)

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of finding each spot's other view among all spots of the batch."""
        part = part or World()
        views, changes = self._views(pixels, seed, step, part)
        place, count = views[0].device, len(pixels)
        spots = common(*changes, self._params.spots, generator(seed, step, "spots"))
        at = send(torch.cat([share(spots.first, part), share(spots.second, part)]), place)
        with autocast(self._dtype, place):
            maps = self.trunk.maps(torch.cat(views))
            said = torch.cat([looked_up(features, at) for features in maps], dim=2)
            vectors = self.projector(said.flatten(0, 1)).unflatten(0, said.shape[:2])
        own = nn.functional.normalize(vectors.float(), dim=2)
        first, second = (gathered(half, count, part) for half in own.chunk(2))
        seen = send(spots.seen, place)
        mine = send(share(torch.arange(count), part), place)
        return self._compared(own, torch.cat([first, second]), seen, mine) / max(1, 2 * int(spots.seen.sum()))

    def _compared(self, own: torch.Tensor, every: torch.Tensor, seen: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
        """Return the sum of the cross entropies of this process's spots."""
        count, spots = seen.shape
        places = (mine[:, None] * spots + torch.arange(spots, device=mine.device)).flatten()
        places = torch.cat([places, places + count * spots])
        likeness = own.flatten(0, 1) @ every.flatten(0, 1).T / self._params.temperature
        both = seen.flatten().repeat(2)
        out = ~both[None] | (torch.arange(len(both), device=mine.device) == places[:, None])
        other = (places + count * spots) % len(both)
        right = likeness.gather(1, other[:, None])[:, 0]
        all_others = likeness.masked_fill(out, torch.finfo(likeness.dtype).min).logsumexp(dim=1)
        return ((all_others - right) * both[places]).sum()

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        (first, second), _ = self._views(pixels, seed, 0, World())
        image_rows({"image": pixels, "one view": first.cpu(), "another": second.cpu()}, folder / "views.png")
