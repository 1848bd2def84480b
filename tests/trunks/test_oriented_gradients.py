"""What oriented gradients teach: to say of spots of a warped image what edges lie around them in the image itself."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from graftline.learning.augment import draw
from graftline.learning.device import device
from graftline.learning.distributed import World
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import batch_indices, generator
from graftline.problems.images import JointObjective
from graftline.trunks.image_pool import Pool
from graftline.trunks.vision.oriented_gradients import (
    DIRECTIONS,
    TOLD,
    OrientedGradients,
    described,
    histograms,
    scale_of,
)
from graftline.trunks.vision.parameters import OrientedGradientsParams, ResNetParams
from graftline.trunks.vision.spots import common, looked_up
from graftline.trunks.vision.trunk import new_trunk
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels

SIDE = 32
WARPED = Augmentation(shift=3, rotation=20, scale=0.2, brightness=0.3, contrast=0.4)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Return grey noise with three bars in it, of any direction."""
    drawn = torch.Generator().manual_seed(0)
    pictures = torch.rand(32, 1, SIDE, SIDE, generator=drawn) * 0.04
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for picture in pictures[:, 0]:
        for row, column, angle in torch.rand(3, 3, generator=drawn).tolist():
            down, along = y - 4 - 24 * row, x - 4 - 24 * column
            across = down * math.cos(3.2 * angle) - along * math.sin(3.2 * angle)
            picture[(across.abs() < 1.5) & (down.square() + along.square() < 36)] = 0.9
    return pictures


def objective(**changes: Any) -> OrientedGradients:
    torch.manual_seed(0)
    trunk = new_trunk(ResNetParams(stem=8, depths=(1, 1), channels=(8, 16)), ImageColumn("image", (SIDE, SIDE), 255))
    params = OrientedGradientsParams(**{"augmentation": WARPED, "spots": 6, "cells": 3, "hidden": 32, **changes})
    return OrientedGradients(trunk, params, "float32")


def test_an_edge_counts_for_its_own_direction() -> None:
    ramp = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    for turns, direction in ((0, 0), (1, 6), (2, 4), (3, 2)):  # from dark to light: right, up, left, down
        found = histograms(ramp.rot90(turns, (2, 3)), 4)[0, :, 8, 8]
        assert found.argmax() == direction and found.sum() == pytest.approx(1 / 15, abs=1e-4)
    slanted = (ramp + ramp.rot90(3, (2, 3))) / 2
    assert histograms(slanted, 4)[0, :, 8, 8].argmax() == 1, "between right and down"


def test_what_is_described_depends_on_the_shape_and_not_on_the_light(images: torch.Tensor) -> None:
    places = torch.rand(32, 5, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    one, darker, other = (described(each, places, 5, 4) for each in (images, images * 0.6 + 0.2, images.flip(0)))
    assert one.shape == (32, 5, 25 * DIRECTIONS) and one.norm(dim=2).max() < 1
    assert (one - darker).norm(dim=2).max() < 0.05 < 0.5 < (one - other).norm(dim=2).mean()


def test_cells_lie_around_the_spot_row_by_row_and_none_beyond_the_edge() -> None:
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[0, 0, 10:14, 18:22] = 1
    cells = described(image, torch.tensor([[[-0.25, -0.25], [0.95, 0.95]]]), 3, 4)[0].unflatten(1, (9, DIRECTIONS))
    strength = cells.sum(dim=2)
    assert strength[0].argmax() == 5, "a square of 4 pixels 8 to the right of (12, 12): the middle row's last cell"
    assert (strength[1] == 0).all()
    noise = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    there = described(noise, torch.tensor([[[0.99, 0.0]]]), 3, 4)[0, 0]
    assert (there.unflatten(0, (3, 3, -1)).sum(dim=2) > 0).tolist() == [[True, True, False]] * 3


def test_what_is_told_varies_alike_each_by_itself() -> None:
    drawn = torch.Generator().manual_seed(0)
    numbers = torch.randn(4000, 3, generator=drawn) @ torch.tensor([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]]) + 5
    scale = scale_of(numbers)
    assert (scale.mean - 5).abs().max() < 0.1
    assert (scale.of(numbers).T.cov() - torch.eye(3)).abs().max() < 0.05
    flat = scale_of(torch.zeros(0, 200))
    assert flat.directions.shape == (200, TOLD) and torch.isfinite(flat.of(torch.zeros(2, 200))).all()


def test_the_loss_is_the_error_of_what_is_told(images: torch.Tensor) -> None:
    made, few = objective().eval(), images[:4]
    view = draw(WARPED, generator(0, 2, "view"), 4, (1, SIDE, SIDE))
    spots = common(few, [view], 6, generator(0, 2, "spots"))
    maps = made.trunk.maps(view.apply(few, WARPED.edge))
    told = made.teller(torch.cat([looked_up(features, spots.views[0]) for features in maps], dim=2)[spots.seen])
    scale = made._scale_of([few])
    wanted = scale.of(described(few, spots.places, 3, 4)[spots.seen])
    assert 0 < spots.seen.sum() <= 24
    assert made.loss(few, 0, 2).item() == pytest.approx((told - wanted).square().mean().item(), rel=1e-4)


@pytest.fixture(scope="module")
def pool(images: torch.Tensor) -> Pool:
    return Pool(Pixels.of((images * 255).byte().movedim(1, 3).numpy()))


def test_the_scale_is_the_pools_in_all_steps(pool: Pool) -> None:
    made = objective().eval()
    first = made.loss_in(pool, torch.arange(4), 0, 0).item()
    made.loss_in(pool, torch.arange(9, 20), 0, 7)
    assert made.loss_in(pool, torch.arange(4), 0, 0).item() == first
    assert objective().eval().loss_in(pool, torch.arange(4), 0, 0).item() == first, "after a restart, too"
    assert made.loss(pool.images(torch.arange(4)), 0, 0).item() != first, "alone, it is these images'"


def test_beside_a_head_it_is_told_on_the_scale_that_it_was_pretrained_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the seed, and in each step: the layers that tell it would have to learn it anew otherwise."""
    pretrained, made = (objective().eval().to(device()) for _ in range(2))
    pretrained.loss_in(pool, torch.arange(4), 0, 0)
    monkeypatch.setattr("graftline.problems.images.load_objective", lambda *given, **named: made)
    model: Any = SimpleNamespace(trunk=made.trunk, dtype="float32")
    joint = JointObjective(Path(), model, pool.pixels, 8, scratch=False)
    for step in range(2):
        expected = pretrained.loss_in(pool, batch_indices(6, step, 8, len(pool)), 5, step)
        assert joint.loss(5, step).item() == expected.item()


def test_the_scale_of_a_pool_does_not_depend_on_how_many_images_are_in_memory(images: torch.Tensor) -> None:
    made = objective()
    whole, parts = (made._scale_of(images.split(size)) for size in (32, 5))
    assert torch.equal(whole.mean, parts.mean) and torch.equal(whole.directions, parts.directions)


def test_processes_share_the_loss(images: torch.Tensor) -> None:
    made = objective().eval()
    shares = [made.loss(images[:7], 0, 1, World(rank, 3)).item() for rank in range(3)]
    assert sum(shares) == pytest.approx(made.loss(images[:7], 0, 1).item(), rel=1e-5)


def test_the_loss_is_a_pure_function_of_seed_and_step(images: torch.Tensor) -> None:
    made = objective().eval()
    loss = made.loss(images, 0, 3).item()
    torch.rand(5)
    assert made.loss(images, 0, 3).item() == loss
    assert made.loss(images, 0, 4).item() != loss != made.loss(images, 1, 3).item()
    assert math.isfinite(made.loss(torch.zeros(4, 1, SIDE, SIDE), 0, 0).item()), "images of one shade"


def test_a_trunk_learns_what_edges_there_are(images: torch.Tensor) -> None:
    made = objective(augmentation=Augmentation(shift=2), spots=24)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = made.loss(images, 0, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.96 < 1 < losses[0] < 2, "who knows nothing and says the mean has 1"
    assert all(weights.grad is not None and weights.grad.any() for weights in made.head.parameters())


def test_mirrored_views_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"augmentation.flip is 0.5"):
        OrientedGradientsParams(augmentation=Augmentation(flip=0.5))


def test_the_picture_shows_images_their_edges_and_views(images: torch.Tensor, tmp_path: Path) -> None:
    objective().draw(images[:4], 0, tmp_path)
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
