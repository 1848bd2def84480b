"""Sequence classification: one class a document, by transformers' own head on the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from graftline.components.finetune.answers import Answers, labelled
from graftline.components.finetune.heads.documents import Documents, by_length, documents_of
from graftline.components.finetune.heads.head import Classes, Joint, Model
from graftline.components.finetune.heads.joint import JointLanguageModel
from graftline.components.finetune.heads.transformer import (
    TextHead,
    TextHeadParams,
    TextModel,
    check_labels,
    label_settings,
    longest,
    saved_model,
    start_model,
    with_dropout,
    zero_classifier,
)
from graftline.dataset import Schema, read_texts
from graftline.text.tokenizer import load_tokenizer


class SequenceClassificationParams(TextHeadParams):
    """Parameters of the head `sequence_classification`."""

    name: Literal["sequence_classification"] = "sequence_classification"
    pooling: Literal["mean", "cls"] = "mean"
    """How a ModernBERT document becomes one vector: the mean of its tokens, or the first one. BERT takes the
    first, a decoder the last, whatever this says: transformers' classes offer no choice."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""


class SequenceClassifier(TextModel[Documents]):
    """Documents to (n, classes) logits."""

    def __init__(self, *parts: Any, smoothing: float) -> None:
        super().__init__(*parts)
        self._smoothing = smoothing

    def forward(self, documents: Documents) -> torch.Tensor:
        logits: torch.Tensor = self.network(**self.inputs(documents)).logits
        return logits.float()

    def loss(self, examples: Documents, seed: int, step: int) -> torch.Tensor:
        """Return the cross entropy of a batch."""
        assert examples.labels is not None
        with self.learning(examples, seed, step):
            logits = self(examples)
        targets = examples.labels.to(logits.device)
        return nn.functional.cross_entropy(logits, targets, label_smoothing=self._smoothing)

    def logits(self, documents: Documents, *, fast: bool = False) -> torch.Tensor:
        """Return (n, classes) float32 logits, in the documents' order."""
        self.eval()
        parts, places = [], list(by_length(documents.lengths))
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in places:
                parts.append(self(documents.take(chosen)).cpu())
        return torch.cat(parts)[torch.cat(places).argsort()]

    def answer(self, examples: Documents, *, fast: bool = False) -> Answers:
        assert examples.labels is not None
        return Answers.of(examples.labels.numpy(), self.probabilities(examples, fast=fast))

    def probabilities(self, documents: Documents, *, fast: bool = False) -> np.ndarray:
        """Return (n, classes) float32 probabilities."""
        return self.logits(documents, fast=fast).softmax(dim=1).numpy()

    def score(self, examples: Documents) -> tuple[int, float]:
        assert examples.labels is not None
        logits = self.logits(examples, fast=True)
        loss = nn.functional.cross_entropy(logits, examples.labels)
        return int((logits.argmax(dim=1) == examples.labels).sum()), -loss.item()


class SequenceClassification(TextHead[Documents, SequenceClassificationParams]):
    """Learns one class a document."""

    examples = Documents
    plural, unit = "documents", "document"

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

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> SequenceClassifier:
        from transformers import AutoModelForSequenceClassification

        check_labels(schema)
        settings = {
            **with_dropout(self._params.dropout),
            **label_settings(schema),
            "classifier_pooling": self._params.pooling,
            "problem_type": "single_label_classification",
        }
        network, new = start_model(AutoModelForSequenceClassification, trunk, scratch=scratch, **settings)
        zero_classifier(network)
        model = self._model(network, load_tokenizer(trunk), new)
        if self._params.lora is not None:
            model.add_adapters(self._params.lora)
        return model

    def _model(self, *parts: Any) -> SequenceClassifier:
        return SequenceClassifier(*parts, self._params, smoothing=self._params.label_smoothing)

    def joint(
        self, trunk: Path, model: Model[Documents], unlabelled: Documents, batch: int, *, scratch: bool
    ) -> Joint:  # fmt: skip
        assert isinstance(model, SequenceClassifier)
        return JointLanguageModel(trunk, model, unlabelled, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> SequenceClassifier:
        from transformers import AutoModelForSequenceClassification

        network = saved_model(AutoModelForSequenceClassification, folder)
        return self._model(network, load_tokenizer(folder), frozenset()).eval()
