"""What the classifiers share: a class for each unit (a document, a word, a clip), by transformers' own head."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.problems.classes import ClassAnswers
from graftline.problems.deciding import Decider
from graftline.problems.documents import Documents
from graftline.problems.outputs import name_outputs
from graftline.problems.text_parameters import TextClassificationParams
from graftline.problems.texts import LabelledTextProblem
from graftline.problems.transformer import Labelled, LabelledText
from graftline.problems.weighing import cross_entropy

D = TypeVar("D", bound=Documents)


def name_classes(schema: Schema) -> dict[str, Any]:
    """Return what a model's config says of the classes. Raises InputError: there are fewer than two."""
    if schema.label is None or len(schema.classes) < 2:
        raise InputError(
            "schema.json",
            f"{len(schema.classes)} classes",
            expected="a label column with at least 2 classes",
            fix="declare it in the contract, or choose a head that needs none",
        )
    return name_outputs([str(name) for name in schema.classes])


class Classifier(Decider[D], Labelled[D]):
    """Examples to (units, classes) logits."""

    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        return cross_entropy(outputs, labels, weights, self._params.label_smoothing)

    def probabilities(self, examples: D) -> np.ndarray:
        """Return (units, classes) float32 probabilities."""
        return self.decide(examples).probabilities


class TextClassifier(Classifier[D], LabelledText[D]):
    """On text."""


P = TypeVar("P", bound=TextClassificationParams)


class TextClassification(LabelledTextProblem[D, P], Generic[D, P]):
    """Learns one class a unit."""

    def settings(self, schema: Schema) -> dict[str, Any]:
        return name_classes(schema)

    @abstractmethod
    def show(self, dataset: Path, split: str, examples: D, units: np.ndarray) -> list[str]:
        """Return what the answers at the (k,) positions `units` are about, as text."""

    def present(self, answers: ClassAnswers, examples: D, dataset: Path, out: Path, mistakes: int) -> None:
        schema, worst = read_schema(dataset), answers.worst_mistakes(mistakes)
        answers.write_classes(schema, out)
        texts = self.show(dataset, "test", examples, worst)
        answers.write_mistakes(examples.units(), worst, texts, schema, out)
