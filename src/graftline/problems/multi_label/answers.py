"""Sets of classes as answers: what is measured of them, and what a person is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.jsonfile import write_json
from graftline.plots import ACCENT, INK, MUTED, cut, figure, legend, plain, save
from graftline.problems.answers import Answers
from graftline.problems.multi_label.scores import EXACT_MATCH, MAP, MICRO_F1, exact_rows, macro_rows, micro_rows
from graftline.problems.pictures import plot_images, plot_reliability
from graftline.problems.scores import MACRO_F1, Ranked, Sets, calibration_rows, class_scores, precision_rows
from graftline.problems.sections import Section, write_sections
from graftline.score import RowStatistics, Score

if TYPE_CHECKING:
    from graftline.dataset import Schema
    from graftline.values.pixels import Pixels


@dataclass(frozen=True, eq=False)
class SetAnswers(Answers):
    """A set of classes a row."""

    labels: Sets
    probabilities: NDArray[np.float32]
    """(n, classes), each by itself from 0 to 1."""
    thresholds: NDArray[np.float64]
    """(classes,) the probability from which on a class is in the set."""

    @classmethod
    def of(
        cls, scores: tuple[Score, ...], rows: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor,
        thresholds: NDArray[np.float64],
    ) -> SetAnswers:  # fmt: skip
        """Return the answers that (n, classes) logits give."""
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float()).item()
        return cls(scores, rows.numpy(), loss, labels.numpy(), logits.sigmoid().numpy(), thresholds)

    @property
    def predicted(self) -> Sets:
        predicted: Sets = self.probabilities >= self.thresholds
        return predicted

    def statistics(self, score: Score) -> RowStatistics:
        if score == MAP:
            return self._retrieved
        of = {MICRO_F1: micro_rows, MACRO_F1: macro_rows, EXACT_MATCH: exact_rows}[score]
        return of(self.rows, self.labels, self.predicted)

    @property
    def _retrieved(self) -> Ranked:
        return precision_rows(MAP, self.rows, self.labels, self.probabilities)

    def columns(self, schema: Schema) -> dict[str, Any]:
        import pyarrow as pa

        flat, kind = pa.array(self.probabilities.ravel()), pa.list_(pa.string())
        return {
            "label": pa.array([names(row, schema) for row in self.labels], kind),
            "predicted": pa.array([names(row, schema) for row in self.predicted], kind),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, self.probabilities.shape[1]),
        }

    @property
    def _doubt(self) -> NDArray[np.float32]:
        """(n, classes) how sure the model was of each wrong yes or no; 0 where it is right."""
        sure = np.where(self.predicted, self.probabilities, 1 - self.probabilities)
        doubt: NDArray[np.float32] = np.where(self.predicted != self.labels, sure, 0)
        return doubt

    def worst_mistakes(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the rows whose set is wrong, the surest wrong yes or no first, at most `count`."""
        doubt = self._doubt.max(axis=1)
        wrong = np.flatnonzero(doubt)
        return wrong[np.argsort(-doubt[wrong], kind="stable")][:count]

    def write(self, schema: Schema, out: Path) -> None:
        """Write classes.json, pictures of the classes and of how far probabilities can be believed, and the section."""
        ones, retrieved = np.ones((1, len(self))), self._retrieved
        lines: list[dict[str, Any]] = [
            {
                "class": name, **asdict(found), "threshold": float(self.thresholds[number]),
                "average_precision": float(retrieved.of_class(number, ones)[0]) if found.support else None,
            }
            for number, (name, found) in enumerate(
                zip(schema.classes, class_scores(self.statistics(MACRO_F1)), strict=True)
            )
        ]  # fmt: skip
        write_json(lines, out / "classes.json")
        _plot_classes(lines, len(self), out / "classes.png")
        write_sections([_section(lines)], out)
        # Each yes or no is an answer, right on its side of a half, wherever the thresholds are.
        sure = np.maximum(self.probabilities, 1 - self.probabilities).ravel()
        right = ((self.probabilities >= 0.5) == self.labels).ravel()
        rows = np.repeat(self.rows, len(schema.classes))
        measured = replace(calibration_rows(rows, sure, right), weights=self.primary.weights)
        plot_reliability(measured, out / "reliability.png")

    def write_mistakes(self, worst: NDArray[np.int64], texts: list[str], schema: Schema, out: Path) -> None:
        """Write mistakes.json: text, actual and predicted set of the rows at `worst`, and how sure the model was."""
        lines = [
            {
                "row": int(self.rows[place]), "text": text, "label": _shown(self.labels[place], schema),
                "predicted": _shown(self.predicted[place], schema),
                "confidence": float(self._doubt[place].max()),
            }
            for text, place in zip(texts, worst, strict=True)
        ]  # fmt: skip
        wrong = int((self.predicted != self.labels).any(axis=1).sum())
        write_json({"wrong": wrong, "worst": lines}, out / "mistakes.json")

    def plot_mistakes(self, pixels: Pixels, worst: NDArray[np.int64], schema: Schema, path: Path) -> None:
        """Draw the rows at `worst` of all images, with their actual and predicted sets."""
        captions = [(" → ".join(_shown(of[row], schema) for of in (self.labels, self.predicted)), "") for row in worst]
        title = "Wrong sets: actual → predicted"
        plot_images(pixels[worst], captions, title, path, columns=4, width=2.0, height=1.6)


def names(row: NDArray[np.bool_], schema: Schema) -> list[str]:
    """Return the names of a row's classes."""
    return [schema.classes[number] for number in np.flatnonzero(row)]


def _shown(row: NDArray[np.bool_], schema: Schema) -> str:
    return ", ".join(names(row, schema)) or "none"


def _plot_classes(lines: list[dict[str, Any]], rows: int, path: Path) -> None:
    """Draw F1 and average precision of each class beside the share of rows that are of it, which chance reaches."""
    plot = figure(6.4, min(max(2.4, 0.9 + 0.28 * len(lines)), 14))
    axes = plot.subplots()
    places = np.arange(len(lines))
    axes.barh(places, [line["f1"] for line in lines], 0.6, color=ACCENT, label="F1")
    known = [(place, line["average_precision"]) for place, line in zip(places, lines, strict=True) if line["support"]]
    axes.plot([value for _, value in known], [place for place, _ in known], "D", color=INK, label="average precision")
    axes.plot(
        [line["support"] / rows for line in lines], places, "|", color=MUTED, markersize=12, label="share of rows"
    )
    axes.set_yticks(places, [plain(cut(str(line["class"]), 24)) for line in lines])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), title="The classes on the test set")
    legend(plot)
    save(plot, path)


def _section(lines: list[dict[str, Any]]) -> Section:
    measured = ("precision", "f1", "average_precision", "threshold")
    return Section(
        "The classes",
        "Each class by itself: in the set from its threshold on. By chance, average precision is the share of rows.",
        "classes.png", "F1 and average precision of each class beside the share of rows that are of it",
        ("class", "test rows", "recall, 95%", *(name.replace("_", " ") for name in measured)),
        tuple(
            (line["class"], str(line["support"]), _with_interval(line), *(_number(line[name]) for name in measured))
            for line in lines
        ),
    )  # fmt: skip


def _with_interval(line: dict[str, Any]) -> str:
    if line["recall"] is None:
        return ""
    low, high = line["recall_interval"]
    return f"{line['recall']:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
