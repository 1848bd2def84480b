"""Augmentation: small affine warps of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftline.errors import InputError
from graftline.learning.augment import augment
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import generator
from graftline.tasks.parameters import parse
from graftline.values.splits import read_images

NONE = Augmentation(shift=0, rotation=0, scale=0, shear=0)
MUCH = Augmentation(shift=3, rotation=20, scale=0.2, shear=0.2)


@pytest.fixture(scope="module")
def digits(dataset: Path) -> torch.Tensor:
    return torch.from_numpy(read_images(dataset, "test").pixels.numpy())


def test_zero_ranges_leave_an_image_as_it_is(digits: torch.Tensor) -> None:
    assert torch.allclose(augment(digits, NONE, generator(0, 0, "augment")), digits, atol=1e-5)


def test_a_warp_stays_between_black_and_white_and_changes_each_image(digits: torch.Tensor) -> None:
    warped = augment(digits, MUCH, generator(0, 0, "augment"))
    assert warped.shape == digits.shape
    assert warped.min() >= 0
    assert warped.max() <= 1 + 1e-6
    assert ((warped - digits).abs().amax(dim=(1, 2, 3)) > 0.1).all()


def test_equal_images_in_a_batch_are_warped_differently(digits: torch.Tensor) -> None:
    twins = augment(digits[:1].repeat(8, 1, 1, 1), MUCH, generator(0, 0, "augment"))
    assert len({tuple(twin.flatten().tolist()) for twin in twins}) == 8


def test_a_warp_is_a_pure_function_of_its_generator(digits: torch.Tensor) -> None:
    first, second, other = (augment(digits, MUCH, generator(0, step, "augment")) for step in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_shift_moves_by_at_most_its_range_in_pixels() -> None:
    points = torch.zeros(200, 1, 29, 29)
    points[..., 14, 14] = 1
    moved = augment(points, Augmentation(shift=3), generator(0, 0, "augment"))
    rows, columns = torch.nonzero(moved.sum(dim=(0, 1)) > 0).T
    for places in (rows, columns):
        assert 14 - 4 <= places.min() <= 14 - 2  # interpolation spreads a point over its neighbours
        assert 14 + 2 <= places.max() <= 14 + 4


def test_all_channels_of_an_image_are_warped_alike(digits: torch.Tensor) -> None:
    colours = torch.tensor([1.0, 0.5, 0.25])[None, :, None, None]
    warped = augment(digits * colours, MUCH, generator(0, 0, "augment"))
    assert torch.allclose(warped, augment(digits, MUCH, generator(0, 0, "augment")) * colours, atol=1e-6)


@pytest.mark.parametrize("values", [{"shift": -1}, {"rotation": 90}, {"scale": 0.5}, {"shear": float("nan")}])
def test_a_range_that_is_none_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        parse(values, Augmentation, where="params")
