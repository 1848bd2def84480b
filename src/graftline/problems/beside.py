"""A model beside its baselines, on the same rows: by how much it is ahead, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftline.problems.answers import Answers
from graftline.score import Estimate, Score, difference, estimate, estimates

MODEL = "the model"
_RESAMPLES = 2000


@dataclass(frozen=True)
class Ahead:
    """By how much the model is ahead of a baseline in a score."""

    of: str
    score: Score
    by: Estimate

    def told(self, title: str) -> str:
        """Return it in a sentence, which says plainly if the model is behind; `title` is the score's in there."""
        ends = f"{100 * self.by.low:+.1f} to {100 * self.by.high:+.1f}"
        if self.by.low > 0:
            verdict = f"The model is ahead of {self.of}"
        elif self.by.high < 0:
            verdict = f"The model does not beat {self.of}: it is behind"
        else:
            verdict = f"The model is not shown to beat {self.of}"
        return f"{verdict} in {title}, by {100 * self.by.value:+.1f} points ({ends})."


def ahead(model: Answers, of: str, baseline: Answers, score: Score) -> Ahead:
    mine, theirs = model.statistics(score), baseline.statistics(score)
    return Ahead(of, score, difference(mine, theirs, resamples=_RESAMPLES, seed=0))


def facts(answers: dict[str, Answers], scores: Sequence[Score], compared: Sequence[Ahead]) -> dict[str, object]:
    """Return for programs every score of all answers, by name, with its interval, and the differences."""
    measured = {
        name: {
            score.name: {"value": found.value, "low": found.low, "high": found.high}
            for score in scores
            if (found := estimate(of.statistics(score), resamples=_RESAMPLES, seed=0)).finite
        }
        for name, of in answers.items()
    }
    differences = [
        {"of": one.of, "score": one.score.name, "by": one.by.value, "low": one.by.low, "high": one.by.high}
        for one in compared
    ]
    return {"scores": measured, "ahead": differences}


def line(name: str, how: str, answers: Answers, scores: Sequence[Score]) -> tuple[str, ...]:
    """Return a line of a table: the name, how it was made, and each score with its interval, if it is defined."""
    found = estimates([answers.statistics(score) for score in scores], resamples=_RESAMPLES, seed=0)
    return f"{name} ({how})" if how else name, *(one.told(".3f") if one.finite else "" for one in found)
