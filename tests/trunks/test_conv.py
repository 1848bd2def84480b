"""The convolutional trunk: its shape, and its way to a file and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from graftline.errors import InputError
from graftline.tasks.parameters import parse
from graftline.trunks import CONFIG
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.images import load_trunk


@pytest.mark.parametrize("shape", [(28, 28), (32, 20), (9, 13)])
@pytest.mark.parametrize("width", [8, 48])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_shape_become_embeddings_of_the_given_width(
    shape: tuple[int, int], width: int, channels: int
) -> None:
    trunk = ConvTrunk(ConvParams(channels=(2, 3, 4), width=width), shape, channels).eval()
    images = torch.zeros(5, channels, *shape)
    assert trunk(images).shape == (5, width)
    features = trunk.convolutions(images)
    assert features.shape[1:] == trunk.grid


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_trunk_of_a_trunks_config_has_its_shape(in_channels: int) -> None:
    trunk = ConvTrunk(ConvParams(channels=(2, 3, 4), width=16), (20, 30), in_channels)
    config = json.loads(json.dumps(trunk.config()))
    again = ConvTrunk.from_config(config)
    assert again.config() == trunk.config()
    assert ("in_channels" in config) == (in_channels > 1), "trunks of grey images are named as they always were"
    again.load_state_dict(trunk.state_dict())


def test_a_loaded_trunk_has_the_weights_and_an_untrained_one_has_not(trunk: Path) -> None:
    first, second = load_trunk(trunk), load_trunk(trunk)
    torch.manual_seed(1)
    fresh = load_trunk(trunk, weights=False)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embedding[1].weight, fresh.embedding[1].weight)
    assert first.config() == fresh.config()


def test_weights_that_do_not_fit_the_config_are_refused(trunk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trunk"
    shutil.copytree(trunk, folder)
    config = json.loads((folder / CONFIG).read_text())
    config["trunk"]["width"] *= 2
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"trunk\.safetensors: .*; run pretrain again"):
        load_trunk(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"channels": [0, 4, 8]},
        {"channels": [4, -4, 8]},
        {"channels": [4, 8]},
        {"width": 0},
        {"depth": 3},
        {"name": "x"},
    ],
)
def test_an_impossible_shape_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"params.{next(iter(values))}"):
        parse(values, ConvParams, where="params")
