"""Heads on text: which trunks they take, how windows are labelled, and that settings without an effect do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.question_answering.problem import QuestionAnswering
from graftline.problems.question_answering.windows import _label
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.sequence_classification.problem import SequenceClassification
from graftline.problems.sequence_to_sequence.parameters import SequenceToSequenceParams
from graftline.problems.sequence_to_sequence.problem import Writer
from graftline.problems.texts import TextProblem
from graftline.trunks import CONFIG
from graftline.trunks.text.trunk import KIND
from graftline.values.span import Answer
from graftline.values.text import TextColumn

SCHEMA = Schema(TextColumn("text"), "label", ("a", "b"))


@pytest.mark.parametrize(
    ("problem", "objective", "expected"),
    [
        (SequenceClassification(SequenceClassificationParams()), "denoising", "masked_lm or causal_lm"),
        (QuestionAnswering(QuestionAnsweringParams()), "denoising", "masked_lm"),
        (QuestionAnswering(QuestionAnsweringParams()), "causal_lm", "masked_lm"),
    ],
)
def test_a_trunk_of_another_objective_is_refused_before_training(
    problem: TextProblem[Any, Any], objective: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"kind": KIND, "trunk": {}, "objective": {"name": objective}}))
    with pytest.raises(InputError, match=f"a trunk that {objective} made; expected one that {expected} made"):
        problem.build(tmp_path, SCHEMA, scratch=False)


def test_a_window_is_labelled_by_the_first_right_answer_that_stands_whole_in_it() -> None:
    offsets = [(10, 14), (15, 19), (20, 24)]
    cut, second, third = Answer("cut off", 7), Answer("two", 16), Answer(" ten ", 9)
    assert _label(offsets, 5, [cut, second, third]) == (6, 6)
    assert _label(offsets, 5, [third, second]) == (5, 5)
    assert _label(offsets, 5, [cut, Answer("beyond", 21)]) == _label(offsets, 5, []) == _label([], 5, [cut]) == (0, 0)


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (3, 0.5)])
def test_a_penalty_of_length_that_one_beam_does_not_heed_is_not_saved(
    beams: int, penalty: float, tmp_path: Path
) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    network = BartForConditionalGeneration(
        BartConfig(vocab_size=16, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
                   decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16)
    )  # fmt: skip
    params = SequenceToSequenceParams(beams=beams, length_penalty=0.5)
    writer = cast(Writer, SimpleNamespace(network=network))
    network.generation_config = Writer._search(writer, beams, params)
    network.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved.get("length_penalty", 1.0) == penalty
