"""What contrast teaches: to find the other view of an image among those of all images."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from graftline.learning.parameters import Augmentation
from graftline.trunks.contrastive import Contrastive
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.image_parameters import ContrastiveParams


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Return pictures of one colour each with a bright spot: what a crop leaves can be told from others."""
    drawn = torch.Generator().manual_seed(0)
    colours = torch.rand(64, 3, 1, 1, generator=drawn).expand(-1, -1, 16, 16).clone()
    for image, (row, column) in zip(colours, torch.randint(2, 14, (64, 2), generator=drawn).tolist(), strict=True):
        image[:, row - 2 : row + 2, column - 2 : column + 2] = 1
    return colours


def objective(augmentation: Augmentation | None = None, temperature: float = 0.2) -> Contrastive:
    torch.manual_seed(0)
    trunk = ConvTrunk(ConvParams(channels=(4, 8, 16), width=32), (16, 16), 3)
    changes = {} if augmentation is None else {"augmentation": augmentation}
    made = build_objective(trunk, ContrastiveParams(temperature=temperature, **changes))
    assert isinstance(made, Contrastive)
    return made


def test_two_views_differ_and_are_pure_functions_of_seed_and_step(images: torch.Tensor) -> None:
    made = objective()
    first, second = made.views(images, 0, 3)
    assert first.shape == second.shape == images.shape
    assert ((first - second).abs().amax(dim=(1, 2, 3)) > 0.01).all()
    torch.rand(5)
    again, other = made.views(images, 0, 3), made.views(images, 0, 4)
    assert torch.equal(again[0], first) and torch.equal(again[1], second)
    assert not torch.equal(other[0], first)


def test_the_loss_is_that_of_the_paper(images: torch.Tensor) -> None:
    """Pair by pair, as SimCLR's equation 1 writes it."""
    made = objective(temperature=0.5).eval()
    first, second = (made.projector(made.trunk(views)).detach() for views in made.views(images[:5], 0, 0))
    vectors = torch.nn.functional.normalize(torch.cat([first, second]), dim=1)
    alike = ((vectors @ vectors.T) / 0.5).exp()
    losses = []
    for one in range(10):
        pair = (one + 5) % 10
        losses.append(-math.log(alike[one, pair] / sum(alike[one, other] for other in range(10) if other != one)))
    assert made.loss(images[:5], 0, 0).item() == pytest.approx(sum(losses) / 10, abs=1e-5)


def test_a_trunk_learns_to_find_the_other_view(images: torch.Tensor) -> None:
    made = objective()
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = made.loss(images, 0, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > math.log(127) - 1, "at first no better than by chance, about"
    assert sum(losses[-5:]) / 5 < losses[0] - 1
    assert all(weights.grad is not None and weights.grad.abs().sum() > 0 for weights in made.head.parameters())


def test_the_picture_shows_images_and_both_views(images: torch.Tensor, tmp_path: Path) -> None:
    objective().draw(images[:4], 0, tmp_path)
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
