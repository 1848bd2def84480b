"""Sequence classification: one class a document, by transformers' own head on the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema
from graftline.problems.answers import LABEL_HEADER, label_line, labelled
from graftline.problems.classification import TextClassification, TextClassifier
from graftline.problems.documents import Documents
from graftline.problems.problem import LABEL, Model
from graftline.problems.reading import with_cut
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.transformer import DocumentModel, encode
from graftline.values.category import ClassLabel
from graftline.values.splits import read_texts
from graftline.values.strings import string_of
from graftline.values.text import TextColumn


class SequenceClassifier(DocumentModel[Documents], TextClassifier[Documents]):
    """Documents to (n, classes) logits."""

    @staticmethod
    def targets(examples: Documents) -> torch.Tensor:
        assert examples.labels is not None
        return examples.labels


class SequenceClassification(TextClassification[Documents, SequenceClassificationParams]):
    """Learns one class a document."""

    roles: ClassVar = {"text": TextColumn, LABEL: ClassLabel}
    examples, classifier = Documents, SequenceClassifier
    header = LABEL_HEADER
    plural = "documents"

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def settings(self) -> dict[str, Any]:
        return {"classifier_pooling": self._params.pooling, "problem_type": "single_label_classification"}

    def read(self, dataset: Path, split: str, folder: Path) -> Documents:
        found = read_texts(dataset, split)
        return self.encode(folder, found.texts, found.rows, found.labels)

    def encode(self, folder: Path, texts: list[str], rows: np.ndarray, labels: np.ndarray | None = None) -> Documents:
        """Return texts as the trunk or model in `folder` takes them."""
        return Documents.from_arrays(encode(folder, texts, self._params.max_tokens, rows, labels))

    def show(self, dataset: Path, split: str, examples: Documents, units: np.ndarray) -> list[str]:
        texts = read_texts(dataset, split).texts
        return [texts[place] for place in units]

    def ask(
        self, folder: Path, model: Model[Documents], values: list[str | list[str]], schema: Schema
    ) -> list[dict[str, Any]]:
        assert isinstance(model, SequenceClassifier)
        documents = self.encode(folder, [string_of(text) for text in values], np.arange(len(values)))
        answers = [labelled(row, schema.classes) for row in model.probabilities(documents)]
        return with_cut(answers, documents)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return label_line(answer)
