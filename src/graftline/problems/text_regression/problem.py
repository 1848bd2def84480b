"""Text regression: one number a document or several, by transformers' own head of sequences on the trunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.problems.documents import Documents
from graftline.problems.joint import JointLanguageModel
from graftline.problems.outputs import name_outputs
from graftline.problems.problem import LABEL, Joint, Model
from graftline.problems.reading import with_cut
from graftline.problems.regression import HEADER, NumberAnswers, Regressor, check_numbers, names_of, number_line
from graftline.problems.sections import Section, write_sections
from graftline.problems.text_regression.parameters import TextRegressionParams
from graftline.problems.transformer import (
    DocumentModel,
    TextProblem,
    encode,
    saved_model,
    start_model,
    with_dropout,
    zero_classifier,
)
from graftline.text.tokenizer import load_tokenizer
from graftline.values.number import NumberLabel
from graftline.values.splits import read_texts
from graftline.values.strings import string_of
from graftline.values.text import TextColumn


@dataclass(frozen=True)
class MeasuredDocuments(Documents):
    """Documents with numbers as labels: float64, (n,) or (n, numbers)."""

    @property
    def classes(self) -> None:
        return None


class TextRegressor(Regressor[MeasuredDocuments], DocumentModel[MeasuredDocuments]):
    """Documents to (n, numbers) outputs."""

    def __init__(self, network: Any, tokenizer: Any, new: frozenset[str], params: TextRegressionParams) -> None:
        super().__init__(network, tokenizer, new, params)
        self.regression = params

    def loss(self, examples: MeasuredDocuments, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean squared error of a batch, in variances of the training labels."""
        mine = examples if part is None else examples.take(share(torch.arange(len(examples)), part))
        assert mine.labels is not None
        with self.learning(mine, seed, step, part):
            outputs = self(mine)
        labels = send(mine.labels, outputs.device)
        return self.squared(outputs, labels, mine.weights) * (len(mine) / len(examples))

    def scaled(self, examples: MeasuredDocuments, *, fast: bool = False) -> torch.Tensor:
        return self.logits(examples, fast=fast)

    def save(self, folder: Path) -> dict[str, Any]:
        return {**super().save(folder), **self.facts()}


class TextRegression(TextProblem[MeasuredDocuments, TextRegressionParams]):
    """Learns one number a document, or several."""

    roles: ClassVar = {"text": TextColumn, LABEL: NumberLabel}
    examples = MeasuredDocuments
    header = HEADER
    plural, amount, loss_unit = "documents", "documents", "squared error, in variances"

    def read(self, dataset: Path, split: str, folder: Path) -> MeasuredDocuments:
        found = read_texts(dataset, split)
        documents = self.encode(folder, found.texts, found.rows, found.labels)
        check_numbers(documents.labels, dataset / f"{split}.parquet")
        return documents

    def encode(
        self, folder: Path, texts: list[str], rows: np.ndarray, labels: np.ndarray | None = None
    ) -> MeasuredDocuments:
        """Return texts as the trunk or model in `folder` takes them."""
        return MeasuredDocuments.from_arrays(encode(folder, texts, self._params.max_tokens, rows, labels))

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

    def ask(
        self, folder: Path, model: Model[MeasuredDocuments], values: list[str | list[str]], schema: Schema
    ) -> list[dict[str, Any]]:
        assert isinstance(model, TextRegressor)
        documents = self.encode(folder, [string_of(text) for text in values], np.arange(len(values)))
        return with_cut(model.tell(documents, schema), documents)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return number_line(answer)

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextRegressor:
        names = names_of(schema)
        settings = {
            **with_dropout(self._params.dropout), "classifier_pooling": self._params.pooling,
            "problem_type": "regression", **name_outputs(names),
        }  # fmt: skip
        network, new = start_model(_architecture(), trunk, scratch=scratch, **settings)
        zero_classifier(network)
        model = TextRegressor(network, load_tokenizer(trunk), new, self._params)
        if self._params.lora is not None:
            model.add_adapters(self._params.lora)
        return model

    def joint(
        self, trunk: Path, model: Model[MeasuredDocuments], unlabelled: MeasuredDocuments, batch: int, *, scratch: bool
    ) -> Joint:
        assert isinstance(model, TextRegressor)
        return JointLanguageModel(trunk, model, unlabelled, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> TextRegressor:
        network = saved_model(_architecture(), folder)
        model = TextRegressor(network, load_tokenizer(folder), frozenset(), self._params)
        return model.restore(facts).eval()


def _architecture() -> type:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification
