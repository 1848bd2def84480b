"""Heads on text: which trunks they take, how windows are labelled, and that settings without an effect do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.question_answering.problem import QuestionAnswering
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.sequence_classification.problem import SequenceClassification
from graftline.problems.texts import TextProblem
from graftline.trunks import CONFIG
from graftline.trunks.text.trunk import KIND
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
