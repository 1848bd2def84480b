"""Text regression: one number a document or several, by transformers' own head of sequences on the trunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from graftline.dataset import Schema, read_schema
from graftline.problems.documents import Documents
from graftline.problems.outputs import name_outputs
from graftline.problems.problem import LABEL
from graftline.problems.regression import NumberAnswers, RegressionProblem, Regressor, names_of
from graftline.problems.sections import Section, write_sections
from graftline.problems.text_regression.parameters import TextRegressionParams
from graftline.problems.texts import DocumentProblem
from graftline.problems.transformer import DocumentModel
from graftline.values.number import NumberLabel
from graftline.values.splits import read_texts
from graftline.values.text import TextColumn


@dataclass(frozen=True)
class MeasuredDocuments(Documents):
    """Documents with numbers as labels: float64, (n,) or (n, numbers)."""

    @property
    def classes(self) -> None:
        return None


class TextRegressor(Regressor[MeasuredDocuments], DocumentModel[MeasuredDocuments]):
    """Documents to (n, numbers) outputs."""

    def scaled(self, examples: MeasuredDocuments, *, fast: bool = False) -> torch.Tensor:
        return self.logits(examples, fast=fast)


class TextRegression(RegressionProblem[MeasuredDocuments], DocumentProblem[MeasuredDocuments, TextRegressionParams]):
    """Learns one number a document, or several."""

    roles: ClassVar = {"text": TextColumn, LABEL: NumberLabel}
    examples, model = MeasuredDocuments, TextRegressor
    problem_type = "regression"
    amount = "documents"

    def settings(self, schema: Schema) -> dict[str, Any]:
        return {**super().settings(schema), **name_outputs(names_of(schema))}

    def present(
        self, answers: NumberAnswers, examples: MeasuredDocuments, dataset: Path, out: Path, mistakes: int
    ) -> None:
        schema, texts = read_schema(dataset), read_texts(dataset, "test").texts
        worst, names = answers.worst(mistakes), names_of(schema)
        largest = Section(
            "Largest errors", f"The {len(worst)} test rows of {len(answers)} that are furthest off.",
            header=("text", "actual", "predicted"),
            lines=tuple((texts[place], *answers.told(place, names)) for place in worst),
        )  # fmt: skip
        write_sections([answers.write(schema, out), largest], out)
