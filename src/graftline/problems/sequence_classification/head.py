"""Sequence classification: one class a document, by transformers' own head on the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from graftline.problems.answers import labelled
from graftline.problems.classification import TextClassification, TextClassifier
from graftline.problems.documents import Documents, by_length, documents_of
from graftline.problems.head import Classes, Model
from graftline.problems.parameters import SequenceClassificationParams
from graftline.problems.transformer import longest
from graftline.text.tokenizer import load_tokenizer
from graftline.values.splits import read_texts


class SequenceClassifier(TextClassifier[Documents]):
    """Documents to (n, classes) logits."""

    def forward(self, documents: Documents) -> torch.Tensor:
        logits: torch.Tensor = self.network(**self.inputs(documents)).logits
        return logits.float()

    @staticmethod
    def targets(examples: Documents) -> torch.Tensor:
        assert examples.labels is not None
        return examples.labels

    def logits(self, examples: Documents, *, fast: bool = False) -> torch.Tensor:
        self.eval()
        parts, places = [], list(by_length(examples.lengths))
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in places:
                parts.append(self(examples.take(chosen)).cpu())
        return torch.cat(parts)[torch.cat(places).argsort()]


class SequenceClassification(TextClassification[Documents, SequenceClassificationParams]):
    """Learns one class a document."""

    examples, classifier = Documents, SequenceClassifier
    plural = "documents"

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def settings(self) -> dict[str, Any]:
        return {
            "classifier_pooling": self._params.pooling,
            "problem_type": "single_label_classification",
        }

    def read(self, dataset: Path, split: str, folder: Path) -> Documents:
        found = read_texts(dataset, split)
        return self.encode(folder, found.texts, found.rows, found.labels)

    def encode(
        self, folder: Path, texts: list[str], rows: np.ndarray, labels: np.ndarray | None = None
    ) -> Documents:
        """Return texts as the trunk or model in `folder` takes them."""
        limit = longest(folder, self._params.max_tokens)
        encoded = load_tokenizer(folder)(texts, truncation=True, max_length=limit)["input_ids"]
        return Documents.from_arrays(documents_of(encoded, rows, labels))

    def show(self, dataset: Path, split: str, examples: Documents, units: np.ndarray) -> list[str]:
        texts = read_texts(dataset, split).texts
        return [texts[place] for place in units]

    def ask(
        self, folder: Path, model: Model[Documents], texts: list[str | list[str]], classes: Classes
    ) -> list[dict[str, Any]]:
        assert isinstance(model, SequenceClassifier)
        strings = [text if isinstance(text, str) else " ".join(text) for text in texts]
        documents = self.encode(folder, strings, np.arange(len(texts)))
        return [labelled(row, classes) for row in model.probabilities(documents)]
