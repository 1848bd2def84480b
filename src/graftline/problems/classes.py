"""Answers that choose one of some classes, or of a vocabulary; what is measured of them, and what a person is shown."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.jsonfile import write_json
from graftline.problems import pictures
from graftline.problems.answers import Answers
from graftline.problems.scores import (
    AUROC,
    ECE,
    MACRO_F1,
    MIN_CLASS_RECALL,
    PERPLEXITY,
    accuracy_rows,
    auroc_rows,
    calibration_rows,
    class_rows,
    class_scores,
    confusion,
    perplexity_rows,
)
from graftline.score import RowStatistics, Score

if TYPE_CHECKING:
    from graftline.dataset import Schema


@dataclass(frozen=True, eq=False)
class Choices(Answers):
    """One choice a unit, which is a row, a word or a token."""

    labels: NDArray[np.int64]
    """(n,) true class indices."""
    predicted: NDArray[np.int64]
    """(n,) class indices of the largest probability."""
    confidence: NDArray[np.float32]
    """(n,) the largest probability."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the choice is right."""
        correct: NDArray[np.bool_] = self.predicted == self.labels
        return correct

    def statistics(self, score: Score) -> RowStatistics:
        if score == ECE:
            return calibration_rows(self.rows, self.confidence, self.correct)
        return accuracy_rows(score, self.rows, self.correct)

    def write(self, out: Path) -> None:
        """Draw how far confidence can be believed."""
        pictures.plot_reliability(self.statistics(ECE), out / "reliability.png")


@dataclass(frozen=True, eq=False)
class ClassAnswers(Choices):
    """Choices among classes that have names."""

    probabilities: NDArray[np.float32]
    """(n, classes)."""

    @classmethod
    def of(
        cls, scores: tuple[Score, ...], rows: torch.Tensor | np.ndarray, labels: torch.Tensor, logits: torch.Tensor
    ) -> ClassAnswers:
        """Return the answers that (n, classes) logits give."""
        probabilities = logits.softmax(dim=1).numpy()
        return cls(
            scores,
            np.asarray(rows),
            torch.nn.functional.cross_entropy(logits, labels).item(),
            labels.numpy(),
            probabilities.argmax(axis=1),
            probabilities.max(axis=1),
            probabilities,
        )

    def statistics(self, score: Score) -> RowStatistics:
        if score in (MACRO_F1, MIN_CLASS_RECALL):
            count = self.probabilities.shape[1]
            return class_rows(score, self.rows, self.labels, self.predicted, count)
        if score == AUROC:
            return auroc_rows(self.rows, self.labels, self.probabilities)
        return super().statistics(score)

    def columns(self, schema: Schema) -> dict[str, Any]:
        import pyarrow as pa

        names, flat = pa.array(schema.classes), pa.array(self.probabilities.ravel())
        return {
            "label": names.take(pa.array(self.labels)),
            "predicted": names.take(pa.array(self.predicted)),
            "confidence": pa.array(self.confidence),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, self.probabilities.shape[1]),
        }

    def worst_mistakes(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the wrong answers, most confident first, at most `count`."""
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count]

    def write_classes(self, schema: Schema, out: Path) -> None:
        """Write classes.json, confusion.csv (as DVC's confusion template counts it), and the pictures."""
        self.write(out)
        scores = class_scores(self.statistics(MACRO_F1))
        write_json(
            [{"class": name, **asdict(score)} for name, score in zip(schema.classes, scores, strict=True)],
            out / "classes.json",
        )
        pairs = zip(self.labels, self.predicted, strict=True)
        _write_csv(
            ("actual", "predicted"), ((schema.classes[a], schema.classes[p]) for a, p in pairs), out / "confusion.csv"
        )
        matrix = confusion(self.labels, self.predicted, len(schema.classes))
        pictures.plot_confusion(matrix, [str(name) for name in schema.classes], out / "confusion.png")

    def write_mistakes(
        self, units: dict[str, np.ndarray], worst: NDArray[np.int64], texts: list[str], schema: Schema, out: Path
    ) -> None:
        """Write mistakes.json, the most confident wrong answers: text, actual and predicted class, confidence.

        Args:
            units: what each answer is about.
            worst: (k,) positions of the answers, most confident first.
            texts: (k,) what those are about.
            schema: of the dataset.
            out: the folder.
        """
        lines = [
            {
                **{name: int(values[place]) for name, values in units.items()},
                "text": text,
                "label": schema.classes[self.labels[place]],
                "predicted": schema.classes[self.predicted[place]],
                "confidence": float(self.confidence[place]),
            }
            for text, place in zip(texts, worst, strict=True)
        ]
        write_json({"wrong": int((~self.correct).sum()), "worst": lines}, out / "mistakes.json")


@dataclass(frozen=True, eq=False)
class TokenAnswers(Choices):
    """Choices out of a vocabulary; n times a vocabulary of probabilities would not fit."""

    surprise: NDArray[np.float32]
    """(n,) minus the natural logarithm of the true token's probability, in nats."""

    def statistics(self, score: Score) -> RowStatistics:
        if score == PERPLEXITY:
            return perplexity_rows(self.rows, self.surprise)
        return super().statistics(score)

    def columns(self, schema: Schema) -> dict[str, Any]:
        import pyarrow as pa

        columns = {
            "label": self.labels,
            "predicted": self.predicted,
            "confidence": self.confidence,
            "surprise": self.surprise,
        }
        return {name: pa.array(values) for name, values in columns.items()}


def _write_csv(header: tuple[str, ...], lines: Iterable[tuple[object, ...]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
