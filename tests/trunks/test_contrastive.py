"""What contrast teaches: to find the other view of an image among those of all images."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from contrasted import check_learns

from graftline.errors import InputError
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import generator
from graftline.trunks.contrastive import Contrastive
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.image_pool import Pool, read_pool
from graftline.values.pixels import Pixels


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
    changes: dict[str, Any] = {} if augmentation is None else {"augmentation": augmentation}
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


def test_views_of_one_group_are_all_to_be_found(images: torch.Tensor) -> None:
    """View by view, as equation 2 of Khosla et al. (2020) writes it: the mean over all that show the same."""
    made = objective(temperature=0.5).eval()
    pool = Pool(Pixels.of_numbers(images.numpy()), torch.arange(64) // 2)
    chosen = torch.tensor([0, 1, 2, 5, 9])
    others = pool.images(pool.companions(chosen, generator(0, 0, "companion")))
    views = made.views(pool.images(chosen), 0, 0, None, others)
    vectors = torch.nn.functional.normalize(made.projector(made.trunk(torch.cat(views))).detach(), dim=1)
    alike, group = ((vectors @ vectors.T) / 0.5).exp(), [0, 0, 1, 2, 4] * 2
    losses = []
    for one in range(10):
        rest = [other for other in range(10) if other != one]
        wanted = [other for other in rest if group[other] == group[one]]
        losses.append(
            sum(-math.log(alike[one, w] / sum(alike[one, other] for other in rest)) for w in wanted) / len(wanted)
        )
    assert made.loss_in(pool, chosen, 0, 0).item() == pytest.approx(sum(losses) / 10, abs=1e-5)


def test_a_companion_shows_the_same_and_is_drawn_evenly(images: torch.Tensor) -> None:
    groups = torch.tensor([5, 0, 5, 1, 5, 0])
    pool, chosen = Pool(Pixels.of_numbers(images[:6].numpy()), groups), torch.tensor([0, 1, 3] * 300)
    found = pool.companions(chosen, generator(0, 0, "companion"))
    assert torch.equal(groups[found], groups[chosen])
    counts = torch.stack([found, chosen]).T.unique(dim=0, return_counts=True)
    assert counts[0].tolist() == [[0, 0], [1, 1], [2, 0], [3, 3], [4, 0], [5, 1]]
    assert counts[1].min() > 70, "each of three a third of 300 times, each of two half, one always"


def test_groups_are_the_values_of_a_column_and_a_row_without_one_is_alone(dataset: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset, tmp_path / "dataset")
    table = pq.read_table(folder / "unlabelled.parquet")
    names = ["a", None, "b", "a", None] + ["c"] * (len(table) - 5)
    shuffled = table.append_column("patient", pa.array(names)).take(pa.array(range(len(table))[::-1]))
    pq.write_table(shuffled, folder / "unlabelled.parquet")
    groups = read_pool(folder, ContrastiveParams(group="patient")).groups
    order = table["row"].to_numpy().argsort()
    by_row = [names[place] for place in order]
    assert groups is not None
    for one in range(8):
        same = [other for other in range(len(names)) if by_row[other] == by_row[one] is not None] or [one]
        assert torch.where(groups == groups[one])[0].tolist() == same
    assert read_pool(folder, ContrastiveParams()).groups is None
    for none in ("digit", "image"):  # an image is a list of numbers, and no group
        with pytest.raises(InputError, match=rf"'{none}', which is no column of the pool .*; expected one of patient;"):
            read_pool(folder, ContrastiveParams(group=none))


def test_a_trunk_learns_to_find_the_other_view(images: torch.Tensor) -> None:
    check_learns(objective(), images, 127)


def test_the_picture_shows_images_and_both_views(images: torch.Tensor, tmp_path: Path) -> None:
    objective().draw(images[:4], 0, tmp_path)
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
