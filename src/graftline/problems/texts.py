"""What problems on text share: reading documents, the model on a trunk and in a folder, and the joint objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.problems.documents import Documents
from graftline.problems.joint import JointLanguageModel
from graftline.problems.outputs import zero_head
from graftline.problems.problem import Joint, Model
from graftline.problems.text_parameters import PooledParams, TextHeadParams
from graftline.problems.transformer import TextModel, TransformerProblem, encode, saved_model, start_model, with_dropout
from graftline.text.tokenizer import load_tokenizer
from graftline.trunks import CONFIG, read_config
from graftline.trunks.text.trunk import KIND
from graftline.values.splits import read_texts
from graftline.values.strings import string_of

D = TypeVar("D", bound=Documents)
P = TypeVar("P", bound=TextHeadParams)
Q = TypeVar("Q", bound=PooledParams)


class TextProblem(TransformerProblem[D, P], Generic[D, P]):
    """A head on a trunk of text."""

    plural: ClassVar[str] = "documents"
    model: ClassVar[type[TextModel[Any]]]

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextModel[D]:
        settings = {**with_dropout(self._params.dropout), **self.settings(schema)}
        network, new = start_model(self.architecture(), trunk, scratch=scratch, **settings)
        model = self.model(network, load_tokenizer(trunk), new, self._params)
        if self._params.lora is not None:
            model.add_adapters(self._params.lora)
        return model

    def joint(self, trunk: Path, model: Model[D], unlabelled: D, batch: int, *, scratch: bool) -> Joint:
        assert isinstance(model, self.model)
        return JointLanguageModel(trunk, model, unlabelled, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> TextModel[D]:
        network = saved_model(self.architecture(), folder)
        return self.model(network, load_tokenizer(folder), frozenset(), self._params).eval()


def check_objective(trunk: Path, *expected: str) -> None:
    """Raise InputError unless one of these objectives made the trunk in a folder."""
    objective = read_config(trunk, KIND)["objective"]["name"]
    if objective not in expected:
        names = " or ".join(expected)
        raise InputError(
            trunk / CONFIG,
            f"a trunk that {objective} made",
            expected=f"one that {names} made",
            fix=f"set pretrain.objective.name to {names}, or choose another head",
        )


class LabelledTextProblem(TextProblem[D, P]):
    """Learns to tell something of each unit, a document or a word, by transformers' own head."""

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextModel[D]:
        check_objective(trunk, "masked_lm", "causal_lm")
        model = super().build(trunk, schema, scratch=scratch)
        zero_head(model.network, "classifier", "score")
        return model


class DocumentProblem(LabelledTextProblem[D, Q]):
    """Learns to tell something of each document."""

    examples: type[D]
    problem_type: ClassVar[str]
    """The name that transformers has for it."""

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def settings(self, schema: Schema) -> dict[str, Any]:
        pooling = {"classifier_pooling": self._params.pooling, "problem_type": self.problem_type}
        return {**super().settings(schema), **pooling}

    def read(self, dataset: Path, split: str, folder: Path) -> D:
        found = read_texts(dataset, split)
        return self.encode(folder, found.texts, found.rows, found.labels)

    def encode(self, folder: Path, texts: Sequence[Any], rows: np.ndarray, labels: np.ndarray | None = None) -> D:
        """Return texts as the trunk or model in `folder` takes them."""
        return self.examples.from_arrays(encode(folder, list(texts), self._params.max_tokens, rows, labels))

    def asked(self, folder: Path, values: list[Any]) -> D:
        """Return the questions' values as examples without labels."""
        return self.encode(folder, [string_of(text) for text in values], np.arange(len(values)))

    def show(self, dataset: Path, split: str, examples: D, units: np.ndarray) -> list[str]:
        """Return the texts of the answers at the (k,) positions `units`."""
        texts = read_texts(dataset, split).texts
        return [texts[place] for place in units]
