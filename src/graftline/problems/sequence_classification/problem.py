"""Sequence classification: one class a document, by transformers' own head on the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from graftline.dataset import Schema
from graftline.problems.answers import LABEL_HEADER, label_line, labelled
from graftline.problems.classification import TextClassification, TextClassifier
from graftline.problems.documents import Documents
from graftline.problems.explained_texts import ExplainedTexts, explained_classes, laid_alone
from graftline.problems.problem import LABEL, Model
from graftline.problems.reading import with_cut
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.texts import DocumentProblem
from graftline.problems.transformer import DocumentModel
from graftline.values.category import ClassLabel
from graftline.values.text import TextColumn


class SequenceClassifier(DocumentModel[Documents], TextClassifier[Documents]):
    """Documents to (n, classes) logits."""


class SequenceClassification(
    DocumentProblem[Documents, SequenceClassificationParams],
    TextClassification[Documents, SequenceClassificationParams],
):
    """Learns one class a document."""

    roles: ClassVar = {"text": TextColumn, LABEL: ClassLabel}
    examples, model = Documents, SequenceClassifier
    problem_type = "single_label_classification"
    header = LABEL_HEADER

    def ask(
        self, folder: Path, model: Model[Documents], values: list[str | list[str]], schema: Schema
    ) -> list[dict[str, Any]]:
        assert isinstance(model, SequenceClassifier)
        documents = self.asked(folder, values)
        answers = [labelled(row, schema.classes) for row in model.probabilities(documents)]
        return with_cut(answers, documents)

    def explained(
        self, folder: Path, model: Model[Documents], values: list[str | list[str]], schema: Schema
    ) -> ExplainedTexts:
        assert isinstance(model, SequenceClassifier)
        documents = self.asked(folder, values)
        return explained_classes(model, documents, laid_alone(model.tokenizer, documents, values), schema)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return label_line(answer)
