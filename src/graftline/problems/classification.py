"""What the two text classifiers share: a class for each unit (a document, a word), by transformers' own head."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.problems.classes import ClassAnswers
from graftline.problems.documents import Documents
from graftline.problems.joint import JointLanguageModel
from graftline.problems.outputs import name_outputs
from graftline.problems.problem import Joint, Model
from graftline.problems.text_parameters import TextClassificationParams
from graftline.problems.transformer import (
    TextModel,
    TextProblem,
    check_labels,
    saved_model,
    start_model,
    with_dropout,
    zero_classifier,
)
from graftline.problems.weighing import cross_entropy
from graftline.text.tokenizer import load_tokenizer

D = TypeVar("D", bound=Documents)


class TextClassifier(TextModel[D]):
    """Examples to (units, classes) logits."""

    def __init__(self, *parts: Any, smoothing: float) -> None:
        super().__init__(*parts)
        self._smoothing = smoothing

    @staticmethod
    @abstractmethod
    def targets(examples: D) -> torch.Tensor:
        """Return the (units,) int64 classes of labelled examples."""

    @abstractmethod
    def logits(self, examples: D, *, fast: bool = False) -> torch.Tensor:
        """Return (units, classes) float32 logits, in the units' order."""

    def loss(self, examples: D, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the cross entropy of a batch, the mean over its units."""
        mine = examples if part is None else examples.take(share(torch.arange(len(examples)), part))
        with self.learning(mine, seed, step, part):
            logits = self(mine)
        targets = self.targets(mine)
        loss = cross_entropy(logits, send(targets, logits.device), mine.unit_weights(), self._smoothing)
        return loss * (len(targets) / len(self.targets(examples)))

    def answer(self, examples: D, *, fast: bool = False) -> ClassAnswers:
        rows, logits = examples.units()["row"], self.logits(examples, fast=fast)
        return ClassAnswers.of(self.scores, rows, self.targets(examples), logits)

    def probabilities(self, examples: D) -> np.ndarray:
        """Return (units, classes) float32 probabilities."""
        return self.logits(examples).softmax(dim=1).numpy()


P = TypeVar("P", bound=TextClassificationParams)


class TextClassification(TextProblem[D, P], Generic[D, P]):
    """Learns one class a unit."""

    classifier: ClassVar[type[TextClassifier[Any]]]

    @staticmethod
    @abstractmethod
    def architecture() -> type:
        """Return transformers' Auto class of the model; the import is heavy."""

    def settings(self) -> dict[str, Any]:
        """Return what else the model's config says."""
        return {}

    @abstractmethod
    def show(self, dataset: Path, split: str, examples: D, units: np.ndarray) -> list[str]:
        """Return what the answers at the (k,) positions `units` are about, as text."""

    def present(self, answers: ClassAnswers, examples: D, dataset: Path, out: Path, mistakes: int) -> None:
        schema, worst = read_schema(dataset), answers.worst_mistakes(mistakes)
        answers.write_classes(schema, out)
        texts = self.show(dataset, "test", examples, worst)
        answers.write_mistakes(examples.units(), worst, texts, schema, out)

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextClassifier[D]:
        check_labels(schema)
        settings = {
            **with_dropout(self._params.dropout),
            **name_outputs([str(name) for name in schema.classes]),
            **self.settings(),
        }
        network, new = start_model(self.architecture(), trunk, scratch=scratch, **settings)
        zero_classifier(network)
        model = self._model(network, load_tokenizer(trunk), new)
        if self._params.lora is not None:
            model.add_adapters(self._params.lora)
        return model

    def joint(self, trunk: Path, model: Model[D], unlabelled: D, batch: int, *, scratch: bool) -> Joint:
        assert isinstance(model, self.classifier)
        return JointLanguageModel(trunk, model, unlabelled, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> TextClassifier[D]:
        network = saved_model(self.architecture(), folder)
        return self._model(network, load_tokenizer(folder), frozenset()).eval()

    def _model(self, *parts: Any) -> TextClassifier[D]:
        return self.classifier(*parts, self._params, smoothing=self._params.label_smoothing)
