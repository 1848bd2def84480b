"""Pair classification: one class a pair of texts, which the trunk reads as one sequence, by transformers' own head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftline.dataset import Schema, read_schema, read_split
from graftline.problems.answers import LABEL_HEADER
from graftline.problems.classes import ClassAnswers
from graftline.problems.classification import TextClassification
from graftline.problems.deciding import DecidingProblem
from graftline.problems.documents import Documents, documents_of
from graftline.problems.explained_texts import ExplainedTexts, Laid, sides
from graftline.problems.pair_classification.parameters import PairClassificationParams
from graftline.problems.pair_classification.scores import AVERAGE_PRECISION, ranked_pairs
from graftline.problems.pairs import JoinedTextModel, JoinedTexts, pair_frame, pairs_of
from graftline.problems.problem import LABEL, Model
from graftline.problems.sequence_classification.problem import SequenceClassifier
from graftline.problems.texts import DocumentProblem
from graftline.problems.transformer import longest
from graftline.score import RowStatistics, Score
from graftline.text.tokenizer import load_tokenizer
from graftline.values.category import ClassLabel
from graftline.values.text import TextColumn

KINDS = (TextColumn, TextColumn)


@dataclass(frozen=True, kw_only=True)
class Pairs(JoinedTexts):
    """Pairs of texts as tokens: each is one document, both texts and the marks around them."""

    def units(self) -> dict[str, np.ndarray]:
        assert self.cut is not None
        return {**super().units(), "cut": self.cut.numpy()}


@dataclass(frozen=True, eq=False)
class PairAnswers(ClassAnswers):
    """A class a pair."""

    def statistics(self, score: Score) -> RowStatistics:
        if score == AVERAGE_PRECISION:
            return ranked_pairs(self.rows, self.labels, self.probabilities)
        return super().statistics(score)


class PairClassifier(JoinedTextModel[Documents], SequenceClassifier):
    """Pairs to (n, classes) logits."""

    answers = PairAnswers


class PairClassification(
    DecidingProblem[Pairs],
    DocumentProblem[Pairs, PairClassificationParams],
    TextClassification[Pairs, PairClassificationParams],
):
    """Learns one class a pair."""

    roles: ClassVar = {"first": TextColumn, "second": TextColumn, LABEL: ClassLabel}
    examples, model = Pairs, PairClassifier
    problem_type = "single_label_classification"
    header = (*LABEL_HEADER, "tokens cut")
    plural = "pairs"

    def read(self, dataset: Path, split: str, folder: Path) -> Pairs:
        found = read_split(dataset, split, KINDS)
        return self.encode(folder, list(zip(*found.features, strict=True)), found.rows, found.label)

    def encode(
        self, folder: Path, pairs: Sequence[tuple[str, str]], rows: np.ndarray, labels: np.ndarray | None = None
    ) -> Pairs:  # fmt: skip
        """Return pairs of texts as the trunk or model in `folder` takes them.

        One that is too long loses tokens at the end of its longer text, then of both in turn.
        """
        tokenizer = load_tokenizer(folder)
        frame = pair_frame(tokenizer)
        room = longest(folder, self._params.max_tokens) - frame.marks
        encoded, segments, cut = [], [], np.zeros(len(pairs), dtype=np.int32)
        ids = tokenizer([text for pair in pairs for text in pair], add_special_tokens=False)["input_ids"]
        for place, (first, second) in enumerate(zip(ids[::2], ids[1::2], strict=True)):
            one, two = kept(len(first), len(second), room)
            cut[place] = len(first) + len(second) - one - two
            tokens, of = frame.around(first[:one], second[:two])
            encoded.append(tokens)
            segments += of
        arrays = documents_of(encoded, rows, labels)
        return Pairs.from_arrays({**arrays, "segments": np.array(segments, dtype=np.int32), "cut": cut})

    def show(self, dataset: Path, split: str, examples: Pairs, units: np.ndarray) -> list[str]:
        """Return both texts of each pair, with the names of their columns."""
        names = [feature.name for feature in read_schema(dataset).features]
        columns = read_split(dataset, split, KINDS).features
        return [
            " · ".join(f"{name}: {column[place]}" for name, column in zip(names, columns, strict=True))
            for place in units
        ]

    def asked(self, folder: Path, values: list[Any]) -> Pairs:
        return self.encode(folder, pairs_of(values), np.arange(len(values)))

    def explained(self, folder: Path, model: Model[Pairs], values: list[Any], schema: Schema) -> ExplainedTexts:
        assert isinstance(model, PairClassifier)
        pairs, frame = self.asked(folder, values), pair_frame(model.tokenizer)
        room = longest(folder, self._params.max_tokens) - frame.marks
        found = sides(model.tokenizer, [text for pair in pairs_of(values) for text in pair])
        laid = []
        for first, second in zip(found[::2], found[1::2], strict=True):
            one, two = kept(len(first.of_token), len(second.of_token), room)
            laid.append(Laid((first.seen(one), second.seen(two)), len(frame.before), len(frame.between)))
        return ExplainedTexts.of(model, pairs, laid, *model.chosen(pairs, schema))

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return (*super().line(answer), str(answer["cut"]))


def kept(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each text fit into `room`: the longer one loses first, as the tokenizers library
    cuts by `longest_first`."""
    if first + second <= room:
        return first, second
    least = min(first, second, room // 2)
    return (least, room - least) if first <= second else (room - least, least)
