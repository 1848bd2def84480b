"""Answers to questions about texts, and what each is worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftline.problems.answers import Answers
from graftline.problems.question_answering.scores import ANSWERED_F1, EXACT_MATCH, NO_ANSWER, exact_match, f1
from graftline.problems.scores import area_rows
from graftline.score import RowStatistics, Score
from graftline.values.span import Answer

if TYPE_CHECKING:
    from graftline.dataset import Schema


@dataclass(frozen=True)
class Found:
    """What a model finds of one question."""

    best: Answer | None
    """The best stretch of the text; None if it holds nothing that could be one."""
    margin: float
    """How much better it is, in logits, than that there is no answer."""
    probability: float
    """Of the stretch, in the window where it is best: that it begins and that it ends there, multiplied."""


@dataclass(frozen=True, eq=False)
class QuestionAnswers(Answers):
    """One answer a question; a question is a row."""

    found: list[Found]
    right: list[list[str]]
    """The right answers of each; none where there is none."""
    threshold: float
    """The margin from which on an answer is given."""

    @cached_property
    def given(self) -> list[str]:
        """What is answered; the empty answer where nothing is."""
        return [text_of(one, self.threshold) for one in self.found]

    @cached_property
    def f1(self) -> NDArray[np.float64]:
        """(n,)."""
        return np.array([f1(one, right) for one, right in zip(self.given, self.right, strict=True)])

    @cached_property
    def exact_match(self) -> NDArray[np.float64]:
        """(n,) 0 or 1."""
        return np.array([exact_match(one, right) for one, right in zip(self.given, self.right, strict=True)])

    @cached_property
    def answered(self) -> NDArray[np.bool_]:
        """(n,) whether there is a right answer."""
        return np.array([bool(right) for right in self.right])

    def statistics(self, score: Score) -> RowStatistics:
        if score == NO_ANSWER:
            against = -np.array([one.margin for one in self.found])
            return area_rows(score, self.rows, ~self.answered[:, None], against[:, None])
        values = self.exact_match if score == EXACT_MATCH else self.f1
        counted = self.answered if score == ANSWERED_F1 else np.ones(len(self.rows), bool)
        return RowStatistics.of_units(score, self.rows, [values * counted, counted])

    def columns(self, schema: Schema) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "answers": pa.array(self.right, pa.list_(pa.string())),
            "predicted": pa.array(self.given),
            "start": pa.array([one.best.start if one.best and text else None for one, text in self._pairs()]),
            "margin": pa.array([one.margin for one in self.found]),
            "probability": pa.array([one.probability for one in self.found]),
            "exact_match": pa.array(self.exact_match == 1),
            "f1": pa.array(self.f1),
        }

    def _pairs(self) -> zip[tuple[Found, str]]:
        return zip(self.found, self.given, strict=True)


def text_of(found: Found, threshold: float) -> str:
    """Return the answer that is given; the empty one below the threshold."""
    return found.best.text if found.best is not None and found.margin > threshold else ""


def best_threshold(answers: QuestionAnswers) -> float:
    """Return the margin from which on answers are worth most F1, the nearest to 0 of equal ones.

    It lies between two margins, or 1 beyond the last one: P. Rajpurkar et al., 2018, choose it on held-out data too.
    """
    margins = np.array([one.margin for one in answers.found])
    given = np.array(
        [f1(text_of(one, -np.inf), right) for one, right in zip(answers.found, answers.right, strict=True)]
    )
    order = np.argsort(margins, kind="stable")
    margins, gain = margins[order], (given - ~answers.answered)[order]
    places = np.concatenate([[margins[0] - 1], (margins[1:] + margins[:-1]) / 2, [margins[-1] + 1]])
    worth = np.concatenate([[0.0], -np.cumsum(gain)])  # against answering all
    best = np.flatnonzero(worth >= worth.max() - 1e-9)
    return float(places[best[np.abs(places[best]).argmin()]])
