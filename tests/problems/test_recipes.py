"""Recipes for new data: views where a class is told, painting where a number is, denoising where a text is written."""

from __future__ import annotations

from typing import Any

import pytest

from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.recipes import Data, recipe
from graftline.problems.sequence_to_sequence.parameters import SequenceToSequenceParams
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.conv.parameters import MaskedAutoencoderParams
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.text.parameters import DenoisingParams, TextParams
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


def test_objects_are_looked_for_on_a_trunk_that_learned_what_is_where() -> None:
    assert isinstance(pretrain("boxes").objective, MaskedAutoencoderParams)
    rules: dict[str, Any] = {"type": "image", "shape": [480, 640], "mode": "rgb"}
    data = Data((rules,), {"type": "boxes"}, pool=900, train=400, test=100, rarest=400, most=400, tokens=0, long=0)
    found = plain(recipe(data))
    head = FinetuneParams.model_validate(found["finetune"]).head
    assert isinstance(head, DetectionParams) and head.stride == 8
    assert EvaluateParams.model_validate(found["evaluate"]).lift_labels == (50, 200)


def test_of_two_texts_without_a_label_one_is_read_and_the_other_written() -> None:
    texts = ({"type": "text"}, {"type": "text"})
    data = Data(texts, None, pool=4000, train=3000, test=1000, rarest=3000, most=3000, tokens=20.0, long=70.0)
    found = plain(recipe(data))
    learned = PretrainParams.model_validate(found["pretrain"])
    assert isinstance(learned.objective, DenoisingParams)
    assert isinstance(learned.trunk, TextParams) and learned.trunk.form == "encoder-decoder"
    head = FinetuneParams.model_validate(found["finetune"]).head
    # Each text has the room to itself.
    assert isinstance(head, SequenceToSequenceParams) and head.max_tokens == learned.trunk.max_length == 128
    EvaluateParams.model_validate(found["evaluate"])
