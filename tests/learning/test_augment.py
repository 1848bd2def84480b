"""Augmentation: small affine warps of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftline.errors import InputError
from graftline.learning.augment import augment
from graftline.learning.distributed import World, share
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


ALL = Augmentation(
    shift=3, rotation=20, scale=0.2, shear=0.2, crop=0.3, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4,
    hue=30, grey=0.3, edge="repeat",
)  # fmt: skip
STILL = Augmentation(shift=0)


def painted(count: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, 12, 10, generator=torch.Generator().manual_seed(0))


def test_a_share_of_images_is_mirrored() -> None:
    images = painted(200)
    changed = augment(images, STILL.model_copy(update={"flip": 0.3}), generator(0, 0, "augment"))
    mirrored = [torch.allclose(new, old.flip(2), atol=1e-5) for new, old in zip(changed, images, strict=True)]
    same = [torch.allclose(new, old, atol=1e-5) for new, old in zip(changed, images, strict=True)]
    assert sum(mirrored) + sum(same) == 200
    assert 0.15 < sum(mirrored) / 200 < 0.45


def test_a_crop_is_a_part_of_the_image_of_at_least_its_share() -> None:
    ramp = torch.linspace(0, 1, 64)
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).repeat(300, 1, 1, 1)
    cut = augment(images, STILL.model_copy(update={"crop": 0.25}), generator(0, 0, "augment"))
    width = (cut[:, 0].amax(dim=(1, 2)) - cut[:, 0].amin(dim=(1, 2))) * 64 / 63
    height = (cut[:, 1].amax(dim=(1, 2)) - cut[:, 1].amin(dim=(1, 2))) * 64 / 63
    area = width * height
    assert 0.2 < area.min() < 0.35 and area.max() > 0.85, "nothing but the image comes in at an edge"
    assert ((width / height - 1).abs() > 0.1).any()
    centre = cut[:, 0, 32, 32]
    assert centre.min() < 0.35 and centre.max() > 0.65, "from anywhere in the image"


def test_grey_images_keep_their_brightness_and_lose_their_colours() -> None:
    images = painted(4)
    grey = augment(images, STILL.model_copy(update={"grey": 1.0}), generator(0, 0, "augment"))
    bright = (images * torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]).sum(dim=1)
    assert all(torch.allclose(grey[:, channel], bright, atol=2e-3) for channel in range(3))


def test_hue_and_saturation_change_colours_and_not_brightness() -> None:
    images = 0.4 + 0.2 * painted(8)
    turned = augment(images, STILL.model_copy(update={"hue": 90, "saturation": 0.5}), generator(0, 0, "augment"))
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    assert torch.allclose((images * weights).sum(dim=1), (turned * weights).sum(dim=1), atol=2e-3)
    assert ((turned - images).abs().amax(dim=(1, 2, 3)) > 0.001).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_brightness_and_contrast_are_of_images_of_any_channels(channels: int) -> None:
    images = 0.4 + 0.2 * painted(8, channels)
    changed = augment(
        images, STILL.model_copy(update={"brightness": 0.3, "contrast": 0.3, "hue": 90}), generator(0, 0, "augment")
    )
    assert changed.shape == images.shape
    old, new = images[:, 0], changed[:, 0]
    if channels != 3:  # hue mixes the channels
        bright, spread = new.mean((1, 2)) / old.mean((1, 2)), new.std((1, 2)) / old.std((1, 2))
        for factor in (bright, spread / bright):
            assert 0.69 < factor.min() < 0.95 and 1.05 < factor.max() < 1.31


def test_at_the_edges_black_enters_or_the_outermost_pixels() -> None:
    white = torch.ones(50, 3, 12, 10)
    black, repeated = (
        augment(white, Augmentation(shift=3, rotation=20, edge=edge), generator(0, 0, "augment"))
        for edge in ("black", "repeat")
    )
    assert black.min() == 0
    assert repeated.min() > 0.999


@pytest.mark.parametrize("channels", [1, 3])
def test_a_process_changes_its_share_as_one_process_would(channels: int) -> None:
    images = painted(9, channels)
    whole = augment(images, ALL, generator(0, 0, "augment"))
    for part in (World(0, 2), World(1, 2)):
        mine = augment(share(images, part), ALL, generator(0, 0, "augment"), len(images), part)
        assert torch.allclose(mine, share(whole, part), atol=1e-6)


@pytest.mark.parametrize(
    "values", [{"shift": -1}, {"rotation": 90}, {"scale": 0.5}, {"shear": float("nan")}, {"crop": 0}, {"flip": 2}]
)
def test_a_range_that_is_none_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        parse(values, Augmentation, where="params")
