"""What a model says about the test rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.problems.groups import read_groups
from graftline.problems.model import load_model, read_problem
from graftline.problems.reading import read_examples
from graftline.problems.weighing import answer

if TYPE_CHECKING:
    from graftline.problems.answers import Answers
    from graftline.problems.problem import Examples, Model, Problem


@dataclass(frozen=True)
class Predictions:
    """A model's answers on the test split."""

    answers: Answers
    examples: Examples
    """The test rows, as the model takes them."""
    problem: Problem[Any]
    model: Model[Any]


def predict(folder: Path, dataset: Path) -> Predictions:
    """Return what the model in `folder` (a model or a release) says about the test rows of a dataset.

    Each model reads the rows by itself: two text models may have different vocabularies.
    """
    problem = read_problem(folder)
    examples = read_examples(problem, dataset, "test", folder)
    model = load_model(folder)
    answers = replace(answer(model, examples), groups=read_groups(dataset, "test"))
    return Predictions(answers, examples, problem, model)
