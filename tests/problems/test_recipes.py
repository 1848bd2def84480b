"""Recipes for new images: views where a class is told, painting where a number is."""

from __future__ import annotations

from typing import Any

import pytest

from graftline.problems.recipes import Data, recipe
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.conv.parameters import MaskedAutoencoderParams
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.yamlnotes import plain


def pretrain(label: str) -> PretrainParams:
    rules: dict[str, Any] = {"type": "image", "shape": [32, 32], "mode": "rgb"}
    data = Data(
        features=(rules,),
        label={"type": label},
        pool=4000,
        train=3000,
        test=1000,
        rarest=100,
        most=900,
        tokens=0,
        long=0,
    )
    found = recipe(data)
    return PretrainParams.model_validate(plain(found)["pretrain"])


@pytest.mark.parametrize("label", ["string", "integer", "labels"])
def test_classes_are_learned_by_the_views_that_were_tried(label: str) -> None:
    assert pretrain(label).objective == ContrastiveParams()


def test_numbers_are_learned_by_painting_since_a_view_may_hide_them() -> None:
    assert isinstance(pretrain("float").objective, MaskedAutoencoderParams)
