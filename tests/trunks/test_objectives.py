"""What pretraining learns: to paint an image as it was before it was warped and hidden in part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftline.learning.parameters import Augmentation
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import (
    AutoencoderParams,
    ConvParams,
    ImageObjectiveParams,
    MaskedAutoencoderParams,
)
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.values.splits import read_images

STILL = Augmentation(shift=0)
BOTH = [AutoencoderParams(), MaskedAutoencoderParams()]


@pytest.fixture(scope="module")
def pixels(dataset: Path) -> torch.Tensor:
    return torch.from_numpy(read_images(dataset, "unlabelled").pixels[:64])


def new_trunk(shape: tuple[int, int] = (28, 28), channels: int = 1) -> ConvTrunk:
    torch.manual_seed(0)
    return ConvTrunk(ConvParams(channels=(4, 8, 16), width=32), shape, channels)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("patch", [1, 4, 5])
def test_the_hidden_share_is_about_the_mask_ratio_in_whole_patches(ratio: float, patch: int) -> None:
    params = MaskedAutoencoderParams(mask_ratio=ratio, patch=patch, augmentation=STILL)
    objective = build_objective(new_trunk(), params)
    shown = objective.pictures(torch.ones(300, 1, 28, 28), seed=0, step=0).shown[:, 0] > 0.5
    assert 1 - shown.float().mean().item() == pytest.approx(ratio, abs=0.02)
    whole = shown[:, : 28 // patch * patch, : 28 // patch * patch]
    tiles = whole.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3).float().mean(dim=3)
    assert set(tiles.unique().tolist()) == {0.0, 1.0}


def test_masks_differ_between_images_and_steps() -> None:
    objective = build_objective(new_trunk(), MaskedAutoencoderParams(augmentation=STILL))
    first, second = (objective.pictures(torch.ones(2, 1, 28, 28), seed=0, step=step).shown for step in (0, 1))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_an_autoencoder_hides_nothing(pixels: torch.Tensor) -> None:
    pictures = build_objective(new_trunk(), AutoencoderParams(augmentation=STILL)).pictures(pixels, 0, 0)
    assert torch.allclose(pictures.shown, pixels, atol=1e-5)


@pytest.mark.parametrize("params", BOTH, ids=lambda params: params.name)
def test_the_input_is_warped_and_the_target_is_not(params: ImageObjectiveParams, pixels: torch.Tensor) -> None:
    objective = build_objective(new_trunk(), params)
    pictures = objective.pictures(pixels, seed=0, step=0)
    assert torch.equal(pictures.original, pixels)
    assert not torch.allclose(pictures.shown, pixels, atol=0.1)
    expected = (pictures.painted - pixels).square().mean()
    assert torch.allclose(objective.loss(pixels, seed=0, step=0), expected, rtol=1e-4)


@pytest.mark.parametrize("params", BOTH, ids=lambda params: params.name)
def test_the_loss_is_a_pure_function_of_seed_and_step(params: ImageObjectiveParams, pixels: torch.Tensor) -> None:
    objective = build_objective(new_trunk(), params).eval()
    losses = {(seed, step): objective.loss(pixels, seed, step).item() for seed in (0, 1) for step in (0, 1)}
    torch.rand(9)
    assert all(objective.loss(pixels, *which).item() == loss for which, loss in losses.items())
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize("shape", [(28, 28), (13, 30)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("params", BOTH, ids=lambda params: params.name)
def test_what_is_painted_has_the_images_shape(
    params: ImageObjectiveParams, channels: int, shape: tuple[int, int]
) -> None:
    images = torch.zeros(3, channels, *shape)
    assert build_objective(new_trunk(shape, channels), params).pictures(images, 0, 0).painted.shape == images.shape


def test_trunk_and_decoder_both_learn(pixels: torch.Tensor) -> None:
    objective = build_objective(new_trunk(), MaskedAutoencoderParams())
    objective.loss(pixels, 0, 0).backward()
    assert all(weights.grad is not None and weights.grad.abs().sum() > 0 for weights in objective.decoder.parameters())
    assert objective.trunk.convolutions[0].weight.grad.abs().sum() > 0
