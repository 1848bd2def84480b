"""Sequence classification: one class a document or a clip, by transformers' own head on the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from graftline.dataset import Schema
from graftline.problems.classification import TextClassification, TextClassifier
from graftline.problems.deciding import DecidingProblem
from graftline.problems.documents import Documents
from graftline.problems.explained_texts import ExplainedTexts, laid_alone
from graftline.problems.problem import LABEL, Model, Problem
from graftline.problems.sequence_classification.clips import OnClips
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.texts import DocumentProblem
from graftline.problems.transformer import DocumentModel
from graftline.values.audio import AudioColumn
from graftline.values.category import ClassLabel
from graftline.values.text import TextColumn


class SequenceClassifier(DocumentModel[Documents], TextClassifier[Documents]):
    """Documents to (n, classes) logits."""


class SequenceClassification(
    DecidingProblem[Documents],
    DocumentProblem[Documents, SequenceClassificationParams],
    TextClassification[Documents, SequenceClassificationParams],
):
    """Learns one class a document."""

    roles: ClassVar = {"text": TextColumn, LABEL: ClassLabel}

    @classmethod
    def on(cls, schema: Schema) -> type[Problem[Any]]:
        return OnClips if isinstance(schema.feature, AudioColumn) else cls

    examples, model = Documents, SequenceClassifier
    problem_type = "single_label_classification"

    def explained(
        self, folder: Path, model: Model[Documents], values: list[str | list[str]], schema: Schema
    ) -> ExplainedTexts:
        assert isinstance(model, SequenceClassifier)
        documents = self.asked(folder, values)
        laid = laid_alone(model.tokenizer, documents, values)
        return ExplainedTexts.of(model, documents, laid, *model.chosen(documents, schema))
