"""Dense contrastive: of all spots of a batch's images, find the same one in the other view of its image.

Two views of each image, warped and recoloured each in its own way, are two maps of vectors. What one says of a spot
must be nearer to what the other says of the same spot than to what both say of all others, in this and in the other
images (DenseCL; Wang et al., 2021, arXiv:2011.09157). There spots are matched by what the maps say of them; here they
are known, since the warps are. They lie where there is something to see: to tell a plain ground's spots apart, a trunk
has to make much of noise. Spots near each other are of one thing, and are not told apart.
"""

from __future__ import annotations

from pathlib import Path

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
from graftline.trunks.vision.spots import Spots, common, looked_up
from graftline.trunks.vision.trunk import VisionTrunk


class DenseContrastive(ImageObjective):
    """A trunk, and layers that turn what all its maps say of a spot into the vector that is compared."""

    trunk: VisionTrunk
    _params: DenseContrastiveParams

    def __init__(self, trunk: VisionTrunk, params: DenseContrastiveParams, dtype: str) -> None:
        super().__init__(trunk, params, dtype)
        self.projector = projector(trunk.spot_width(), params.projection)

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
        spots = common(pixels, changes, self._params.spots, generator(seed, step, "spots"))
        at = send(torch.cat([share(view, part) for view in spots.views]), place)
        with autocast(self._dtype, place):
            maps = self.trunk.maps(torch.cat(views))
            said = torch.cat([looked_up(features, at) for features in maps], dim=2)
            vectors = self.projector(said.flatten(0, 1)).unflatten(0, said.shape[:2])
        own = nn.functional.normalize(vectors.float(), dim=2)
        every = torch.cat([gathered(half, count, part) for half in own.chunk(2)])
        right, out = (send(each, place) for each in self._pairs(spots, pixels.shape, part))
        likeness = own.flatten(0, 1) @ every.flatten(0, 1).T / self._params.temperature
        others = likeness.masked_fill(out, torch.finfo(likeness.dtype).min).logsumexp(dim=1)
        losses = others - likeness.gather(1, right[:, None])[:, 0]
        counted = send(share(spots.seen, part).flatten().repeat(2), place)
        return (losses * counted).sum() / max(1, 2 * int(spots.seen.sum()))

    def _pairs(self, spots: Spots, shape: torch.Size, part: World) -> tuple[torch.Tensor, torch.Tensor]:
        """Return of this process's views of spots, k of all m: (k,) the place of the other view, and (k, m) bool which
        views are not compared with it: itself, those near it in its image, and those that are not seen."""
        count, each = spots.seen.shape
        half = torch.tensor([shape[3], shape[2]]) / 2
        near = torch.cdist(spots.places * half, spots.places * half) < self._params.apart
        rows = share(torch.arange(count), part)
        out = torch.zeros(len(rows), each, count, each, dtype=torch.bool)
        out[torch.arange(len(rows)), :, rows] = near[rows] | torch.eye(each, dtype=torch.bool)
        out = (out | ~spots.seen).view(len(rows) * each, count * each).repeat(2, 2)
        places = (rows[:, None] * each + torch.arange(each)).flatten()
        right = torch.cat([places + count * each, places])
        out[torch.arange(len(out)), right] = False
        return right, out

    @torch.no_grad()
    def draw(self, pixels: torch.Tensor, seed: int, folder: Path) -> None:
        (first, second), _ = self._views(pixels, seed, 0, World())
        image_rows({"image": pixels, "one view": first.cpu(), "another": second.cpu()}, folder / "views.png")
