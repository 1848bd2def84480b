"""What dense contrast teaches: to find a spot of an image in another view of it, among all spots of a batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from contrasted import check_learns
from torch.nn.functional import normalize

from graftline.learning.augment import draw
from graftline.learning.distributed import World
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import generator
from graftline.trunks.vision.dense_contrastive import DenseContrastive
from graftline.trunks.vision.parameters import DenseContrastiveParams, ResNetParams
from graftline.trunks.vision.spots import Spots, common, looked_up
from graftline.trunks.vision.trunk import new_trunk
from graftline.values.image import ImageColumn

SIDE = 32
WARPED = Augmentation(shift=5, rotation=20, scale=0.2, shear=0.1, flip=0.5, crop=0.6, edge="repeat")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Return grey noise with three small signs in it, of which each is elsewhere in each image."""
    drawn = torch.Generator().manual_seed(0)
    pictures = torch.rand(32, 1, SIDE, SIDE, generator=drawn) * 0.2
    signs = torch.rand(3, 6, 6, generator=drawn).round()
    for picture in pictures[:, 0]:
        for sign, (row, column) in zip(signs, torch.randint(2, 24, (3, 2), generator=drawn).tolist(), strict=True):
            picture[row : row + 6, column : column + 6] = sign
    return pictures


def objective(how: Augmentation = WARPED, spots: int = 4, **changes: Any) -> DenseContrastive:
    torch.manual_seed(0)
    trunk = new_trunk(ResNetParams(stem=8, depths=(1, 1), channels=(8, 16)), ImageColumn("image", (SIDE, SIDE), 255))
    params = DenseContrastiveParams(augmentation=how, spots=spots, projection=16, **changes)
    return DenseContrastive(trunk, params, "float32")


def test_a_spot_is_compared_with_its_other_view_and_with_spots_that_are_not_near_it() -> None:
    places = torch.tensor([[[-0.5, -0.5], [-0.5, -0.2], [0.5, 0.5]], [[0.0, 0], [0.9, 0.9], [-0.9, 0.9]]])
    seen = torch.tensor([[True, True, True], [True, False, True]])
    made = objective(spots=3, apart=6)  # 0.3 is 4.8 pixels
    right, out = made._pairs(Spots((places, places), seen, places), torch.Size((2, 1, SIDE, SIDE)), World())
    assert right.tolist() == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]
    compared = [(~row).nonzero()[:, 0].tolist() for row in out]
    assert compared[0] == [2, 3, 5, 6, 8, 9, 11], "not itself, its neighbour, and what one view shows only"
    assert compared[8] == [0, 1, 2, 3, 5, 6, 7, 9, 11]
    one, other = (
        made._pairs(Spots((places, places), seen, places), torch.Size((2, 1, 32, 32)), World(n, 2)) for n in (0, 1)
    )
    assert torch.equal(torch.cat([one[0], other[0]]).sort().values, right.sort().values)
    assert torch.equal(one[1], out[[0, 1, 2, 6, 7, 8]]) and torch.equal(other[1], out[[3, 4, 5, 9, 10, 11]])


def test_the_loss_is_that_of_the_paper(images: torch.Tensor) -> None:
    """Spot by spot: the one of the other view among all spots of both views of all images."""
    made = objective(spots=3, temperature=0.5, apart=0).eval()
    first, second = (draw(WARPED, generator(0, 2, name), 4, (1, SIDE, SIDE)) for name in ("first", "second"))
    spots = common(images[:4], (first, second), 3, generator(0, 2, "spots"))
    vectors: list[torch.Tensor] = []
    for changes, at in zip((first, second), spots.views, strict=True):
        maps = made.trunk.maps(changes.apply(images[:4], WARPED.edge))
        said = torch.cat([looked_up(features, at) for features in maps], dim=2)
        vectors += normalize(made.projector(said[spots.seen]), dim=1).detach()
    half = len(vectors) // 2
    losses = []
    for place, vector in enumerate(vectors):
        others = {n: math.exp(vector @ other / 0.5) for n, other in enumerate(vectors) if n != place}
        losses.append(-math.log(others[(place + half) % len(vectors)] / sum(others.values())))
    assert made.loss(images[:4], 0, 2).item() == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_the_loss_is_a_pure_function_of_seed_and_step(images: torch.Tensor) -> None:
    made = objective().eval()
    loss = made.loss(images, 0, 3).item()
    torch.rand(5)
    assert made.loss(images, 0, 3).item() == loss
    assert made.loss(images, 0, 4).item() != loss != made.loss(images, 1, 3).item()


def test_a_trunk_learns_to_find_spots_again(images: torch.Tensor) -> None:
    check_learns(objective(Augmentation(shift=4)), images, 255)


def test_the_picture_shows_images_and_both_views(images: torch.Tensor, tmp_path: Path) -> None:
    objective().draw(images[:4], 0, tmp_path)
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
