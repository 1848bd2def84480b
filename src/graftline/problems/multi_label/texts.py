"""Sets of classes of documents: transformers' own head on the trunk, a yes or no a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.problems.classification import TextClassification
from graftline.problems.documents import Documents
from graftline.problems.explained_texts import laid_alone
from graftline.problems.multi_label.answers import SetAnswers
from graftline.problems.multi_label.explained import ExplainedTextSets
from graftline.problems.multi_label.model import SetModel, with_thresholds
from graftline.problems.multi_label.parameters import OF_IMAGES, MultiLabelParams
from graftline.problems.multi_label.side import SetProblem
from graftline.problems.problem import LABEL
from graftline.problems.texts import DocumentProblem
from graftline.problems.transformer import DocumentModel, TextModel
from graftline.values.labels import LabelSets
from graftline.values.text import TextColumn


class DocumentSets(Documents):
    """Documents with (n, classes) bool labels."""

    @property
    def classes(self) -> None:
        return None


class TextSetModel(SetModel, DocumentModel[DocumentSets]):
    """Documents to (n, classes) logits."""

    narrow_on_cpu: ClassVar[bool] = False

    def logits(self, examples: DocumentSets, *, fast: bool = False) -> torch.Tensor:
        return DocumentModel.logits(self, examples, fast=fast)


class OnText(
    SetProblem, DocumentProblem[DocumentSets, MultiLabelParams], TextClassification[DocumentSets, MultiLabelParams]
):
    """A set of classes a document."""

    roles: ClassVar = {"text": TextColumn, LABEL: LabelSets}
    examples, model = DocumentSets, TextSetModel
    problem_type = "multi_label_classification"
    elsewhere = OF_IMAGES

    def load(self, folder: Path, facts: dict[str, Any]) -> TextModel[DocumentSets]:
        return with_thresholds(super().load(folder, facts), facts)

    def explained(self, folder: Path, model: Any, values: list[Any], schema: Schema) -> ExplainedTextSets:
        documents = self.asked(folder, values)
        laid = laid_alone(model.tokenizer, documents, values)
        return ExplainedTextSets.of(model, documents, laid, *model.chosen(documents, schema))

    def show_mistakes(self, answers: SetAnswers, examples: Any, worst: np.ndarray, dataset: Path, out: Path) -> None:
        texts = self.show(dataset, "test", examples, worst)
        answers.write_mistakes(worst, texts, read_schema(dataset), out)
