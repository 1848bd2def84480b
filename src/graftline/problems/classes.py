"""Answers that choose one of some classes, or of a vocabulary; what is measured of them, and what a person is shown."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.jsonfile import write_json
from graftline.problems import pictures
from graftline.problems.answers import Answers
from graftline.problems.conformal import by_group, law
from graftline.problems.decisions import Decided, sets_of
from graftline.problems.scores import (
    ACCURACY_AT_80,
    AUROC,
    COST,
    ECE,
    MACRO_F1,
    MIN_CLASS_RECALL,
    PERPLEXITY,
    SET_COVERAGE,
    SET_SIZE,
    accuracy_rows,
    auroc_rows,
    calibration_rows,
    class_rows,
    class_scores,
    confusion,
    mean_rows,
    perplexity_rows,
    surest_rows,
)
from graftline.problems.sections import Section, write_sections
from graftline.score import Floats, RowStatistics, Score, estimate

if TYPE_CHECKING:
    from graftline.dataset import Schema


_ANSWERED = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the answers that the report shows the accuracy of."""
_COVERAGES = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class Choices(Answers):
    """One choice a unit, which is a row, a word or a token."""

    labels: NDArray[np.int64]
    """(n,) true class indices."""
    predicted: NDArray[np.int64]
    """(n,) class indices of what was chosen: as a rule, of the largest probability."""
    confidence: NDArray[np.float32]
    """(n,) its probability."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the choice is right."""
        correct: NDArray[np.bool_] = self.predicted == self.labels
        return correct

    def statistics(self, score: Score) -> RowStatistics:
        if score == ECE:
            return calibration_rows(self.rows, self.confidence, self.correct)
        if score == ACCURACY_AT_80:
            return surest_rows(self.rows, self.confidence, self.correct)
        return accuracy_rows(score, self.rows, self.correct)

    def write(self, out: Path) -> None:
        """Draw how far confidence can be believed."""
        pictures.plot_reliability(self.measured(ECE), out / "reliability.png")


@dataclass(frozen=True, eq=False)
class ClassAnswers(Choices):
    """Choices among classes that have names."""

    decided: Decided
    """What was chosen, and out of which probabilities."""
    promises: ClassVar[tuple[Score, ...]] = (SET_COVERAGE,)

    @classmethod
    def of(
        cls, scores: tuple[Score, ...], rows: torch.Tensor | np.ndarray, labels: torch.Tensor, decided: Decided
    ) -> ClassAnswers:
        """Return the answers on labelled units."""
        loss = torch.nn.functional.cross_entropy(decided.logits, labels).item()
        found = labels.numpy()
        return cls(scores, np.asarray(rows), loss, found, decided.chosen, decided.confidence, decided)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, classes)."""
        return self.decided.probabilities

    def odds(self) -> NDArray[np.float64]:
        # as the model said them: shadow models have no temperature to divide theirs by
        logits = self.decided.logits.double() * (self.decided.by.temperature or 1.0)
        right = torch.from_numpy(self.labels)[:, None]
        others = logits.scatter(1, right, -torch.inf).logsumexp(1)
        found: NDArray[np.float64] = (logits.gather(1, right)[:, 0] - others).numpy()
        return found

    def statistics(self, score: Score) -> RowStatistics:
        if score in (SET_COVERAGE, SET_SIZE, COST):
            return mean_rows(score, self.rows, self._each(score))
        if score in (MACRO_F1, MIN_CLASS_RECALL):
            count = self.probabilities.shape[1]
            return class_rows(score, self.rows, self.labels, self.predicted, count)
        if score == AUROC:
            return auroc_rows(self.rows, self.labels, self.probabilities)
        return super().statistics(score)

    def _each(self, score: Score) -> NDArray[Any] | None:
        """Return (n,) what each unit adds to the mean; None where there are no sets, or no costs."""
        costs, sets = self.decided.by.costs, self.decided.sets
        if score == COST:
            return None if costs is None else costs[self.labels, self.predicted]
        if sets is None:
            return None
        return sets[np.arange(len(self)), self.labels] if score == SET_COVERAGE else sets.sum(axis=1)

    def columns(self, schema: Schema) -> dict[str, Any]:
        import pyarrow as pa

        names, flat = pa.array(schema.classes), pa.array(self.probabilities.ravel())
        found = {
            "label": names.take(pa.array(self.labels)),
            "predicted": names.take(pa.array(self.predicted)),
            "confidence": pa.array(self.confidence),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, self.probabilities.shape[1]),
        }
        sets = self.decided.sets
        if sets is not None:
            ends = np.concatenate([[0], sets.sum(axis=1).cumsum()])
            found["set"] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), names.take(pa.array(sets.nonzero()[1])))
        return found

    def worst_mistakes(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the wrong answers, most confident first, at most `count`."""
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count]

    def write_classes(self, schema: Schema, out: Path) -> None:
        """Write classes.json, confusion.csv (as DVC's confusion template counts it), the pictures and sections."""
        self.write(out)
        self._write_doubt(out)
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

    def _write_doubt(self, out: Path) -> None:
        """Write how often the model is right where it is sure, and how far sets and probabilities can be believed."""
        order, hits, counted = self.surest()
        answered, right = counted / counted[-1], hits / counted
        pictures.plot_risk(answered, (counted - hits) / counted, out / "risk.png")
        # As many of the surest as do not count more than the share; rounding may not leave out the last one.
        wanted = [round(share * len(self)) / len(self) * (1 + 1e-9) for share in _ANSWERED]
        lasts = [max(0, int(np.searchsorted(answered, share, side="right")) - 1) for share in wanted]
        sections = [
            Section(
                "Knowing when it does not know",
                "If the model answers only where it is surest: how often it is right, and from which probability on.",
                "risk.png", "Share of wrong answers by the share of test answers that are given",
                ("answered", "right", "surest from"),
                tuple(
                    (f"{share:.0%}", f"{right[last]:.2%}", f"{self.confidence[order[last]]:.4f}")
                    for share, last in zip(_ANSWERED, lasts, strict=True)
                ),
            )
        ]  # fmt: skip
        write_sections([*sections, *self._calibrated()], out)

    def surest(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Return the (n,) places of the answers, the surest first; and up to each how many are right and how many there
        are, by the weights of their rows."""
        order, weights = np.argsort(-self.confidence, kind="stable"), self.answer_weights
        count = np.ones(len(self)) if weights is None else weights[order]
        return order, (count * self.correct[order]).cumsum(), count.cumsum()

    def _calibrated(self) -> list[Section]:
        """Return the section of what val gave; nothing where it gave nothing."""
        by = self.decided.by
        if by.limits is None:
            return []
        note = "Fitted on val, without a temperature; "
        if by.temperature is not None:
            plain = replace(by, temperature=None).decide(self.decided.logits * by.temperature)
            found = calibration_rows(self.rows, plain.confidence, plain.chosen == self.labels)
            without = replace(found, weights=self.primary.weights).value
            note = (
                f"Fitted on val. The temperature, {by.temperature:.3g}, divides the logits: the calibration error is "
                f"{self.measured(ECE).value:.2%}, {without:.2%} without it; "
            )
        note += f"a set holds each class that is not ruled out, and may be empty. {self._law()}"
        shares = ("found, 95%",) if self.groups is None else ("found, 95%", "each group alike")
        sizes = ("classes in a set", "sets of one class", "empty sets")
        header = ("coverage asked for", *shares, "by law, 95%", *sizes)
        return [Section("Sets of classes", note, header=header, lines=tuple(map(self._set_line, _COVERAGES)))]

    def _law(self) -> str:
        """Return which law the shares found are held against."""
        held_out, rows = self.decided.by.held_out, self.primary.rows
        if self.groups is not None:
            drawn, count = f"groups by {self.groups.column}, each counting alike", len(np.unique(self.groups.of(rows)))
        else:
            drawn, count = "rows that stand by themselves" if len(rows) == len(self) else "whole rows", len(rows)
        val = "" if held_out is None else f"{held_out:,} of val and "
        return f"By law, 95 of 100 draws find such a share where a promise is kept: of {drawn}, {val}{count:,} of test."

    def _set_line(self, coverage: float) -> tuple[str, ...]:
        sets = sets_of(self.probabilities, self.decided.by.asked_for(coverage).limit or 0.0)
        sizes, weights = sets.sum(axis=1), self.answer_weights
        size, one, none = (float(np.average(of, weights=weights)) for of in (sizes, sizes == 1, sizes == 0))
        plain = mean_rows(SET_COVERAGE, self.rows, sets[np.arange(len(self)), self.labels])
        held = replace(plain, weights=self.primary.weights)
        judged, told = held, [held]
        if self.groups is not None:
            groups = self.groups.of(held.rows)
            judged = by_group(held, groups, evenly=True)
            told = [by_group(held, groups), judged]
        found = [estimate(one, resamples=1000, seed=0) for one in told]
        held_out = self.decided.by.held_out
        ends = None if held_out is None else law(judged, coverage, held_out)
        return (
            f"{coverage:.0%}",
            *(one.told(".2%") for one in found),
            "not known" if ends is None else f"{ends[0]:.2%} to {ends[1]:.2%}",
            f"{size:.2f}", f"{one:.1%}", f"{none:.1%}",
        )  # fmt: skip

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
