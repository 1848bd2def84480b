"""Sets of classes of documents: transformers' own head on the trunk, a yes or no a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import read_schema
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import arithmetic
from graftline.problems.classification import TextClassification, TextClassifier
from graftline.problems.documents import Documents
from graftline.problems.multi_label.answers import SetAnswers
from graftline.problems.multi_label.model import SetModel, with_thresholds
from graftline.problems.multi_label.parameters import OF_IMAGES, MultiLabelParams
from graftline.problems.multi_label.side import SetProblem
from graftline.problems.problem import LABEL
from graftline.problems.sequence_classification.problem import SequenceClassifier
from graftline.problems.transformer import encode
from graftline.values.labels import LabelSets
from graftline.values.splits import read_texts
from graftline.values.strings import string_of
from graftline.values.text import TextColumn


class DocumentSets(Documents):
    """Documents with (n, classes) bool labels."""

    @property
    def classes(self) -> None:
        return None


class TextSetModel(SetModel, SequenceClassifier):
    """Documents to (n, classes) logits."""

    def __init__(
        self, network: Any, tokenizer: Any, new: frozenset[str], params: MultiLabelParams, **more: Any
    ) -> None:
        super().__init__(network, tokenizer, new, params, **more)
        self.sets, self.dtype = params, arithmetic(params.precision, narrow_on_cpu=False)

    def logits(self, examples: Documents, *, fast: bool = False) -> torch.Tensor:
        return SequenceClassifier.logits(self, examples, fast=fast)

    def loss(self, examples: Documents, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        mine = examples if part is None else examples.take(share(torch.arange(len(examples)), part))
        with self.learning(mine, seed, step, part):
            logits = self(mine)
        labels = send(self.targets(mine), logits.device)
        return self.criterion(logits, labels, mine.weights) * (len(mine) / len(examples))


class OnText(SetProblem, TextClassification[DocumentSets, MultiLabelParams]):
    """A set of classes a document."""

    roles: ClassVar = {"text": TextColumn, LABEL: LabelSets}
    examples, classifier = DocumentSets, TextSetModel
    plural = "documents"
    elsewhere = OF_IMAGES

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def settings(self) -> dict[str, Any]:
        return {"classifier_pooling": self._params.pooling, "problem_type": "multi_label_classification"}

    def read(self, dataset: Path, split: str, folder: Path) -> DocumentSets:
        found = read_texts(dataset, split)
        return self._encode(folder, found.texts, found.rows, found.labels)

    def _encode(
        self, folder: Path, texts: list[str], rows: np.ndarray, labels: np.ndarray | None = None
    ) -> DocumentSets:
        return DocumentSets.from_arrays(encode(folder, texts, self._params.max_tokens, rows, labels))

    def load(self, folder: Path, facts: dict[str, Any]) -> TextClassifier[DocumentSets]:
        return with_thresholds(super().load(folder, facts), facts)

    def asked(self, folder: Path, values: list[Any]) -> DocumentSets:
        return self._encode(folder, [string_of(text) for text in values], np.arange(len(values)))

    def show(self, dataset: Path, split: str, examples: DocumentSets, units: np.ndarray) -> list[str]:
        texts = read_texts(dataset, split).texts
        return [texts[place] for place in units]

    def show_mistakes(self, answers: SetAnswers, examples: Any, worst: np.ndarray, dataset: Path, out: Path) -> None:
        texts = self.show(dataset, "test", examples, worst)
        answers.write_mistakes(worst, texts, read_schema(dataset), out)
