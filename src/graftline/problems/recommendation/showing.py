"""What a person is shown of recommendations: the model beside its baselines, by how known items are, and some users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from graftline.jsonfile import write_json
from graftline.plots import ACCENT, INK, MUTED, WARN, figure, legend, save
from graftline.problems.recommendation.answers import Rankings
from graftline.problems.recommendation.baselines import EASE, POPULARITY, Baseline, baselines
from graftline.problems.recommendation.examples import UNKNOWN, Histories
from graftline.problems.recommendation.scores import COLD, NDCG, REACH, SCORES, TOP, WARM
from graftline.problems.sections import Section, write_sections
from graftline.score import Estimate, Score, difference, estimate, estimates

MODEL = "the model"
_RESAMPLES = 2000
_BANDS = (0, 1, 5, 10, 20, 50, 100, 300)
"""From how many users on an item is in the next band; in the first are those that train never shows."""
_GIVEN = 8
"""How many items of a history are shown."""


def show(answers: Rankings, examples: Histories, dataset: Path, out: Path, users: int) -> None:
    """Write baselines.json, bands.png and the report's sections."""
    others, left_out = baselines(dataset, examples, answers.vocabulary)
    write_json(_facts(answers, others), out / "baselines.json")
    rows = [(MODEL, answers), *((other.name, other.rankings) for other in others)]
    _plot(rows, out / "bands.png")
    write_sections([_beside(answers, others, left_out), _bands(), _some(answers, examples, users)], out)


@dataclass(frozen=True)
class _Ahead:
    """By how much the model is ahead of a baseline."""

    of: str
    score: Score
    by: Estimate

    def told(self) -> str:
        """Return it in a sentence, which says plainly if the model is behind."""
        ends = f"{100 * self.by.low:+.1f} to {100 * self.by.high:+.1f}"
        if self.by.low > 0:
            verdict = f"The model is ahead of {self.of}"
        elif self.by.high < 0:
            verdict = f"The model does not beat {self.of}: it is behind"
        else:
            verdict = f"The model is not shown to beat {self.of}"
        return f"{verdict} in {self.score.title}, by {100 * self.by.value:+.1f} points ({ends})."


def _ahead(answers: Rankings, other: Baseline, score: Score) -> _Ahead:
    mine, theirs = answers.statistics(score), other.rankings.statistics(score)
    return _Ahead(other.name, score, difference(mine, theirs, resamples=_RESAMPLES, seed=0))


def _compared(answers: Rankings, others: Sequence[Baseline]) -> list[_Ahead]:
    """Return what is to be said: against EASE on what it can rank and on all, against the others on cold items."""
    found = []
    for other in others:
        scores = (WARM, NDCG) if other.name == EASE else (NDCG, COLD) if other.name == POPULARITY else (COLD,)
        found += [_ahead(answers, other, score) for score in scores]
    return [one for one in found if one.by.finite]


def _facts(answers: Rankings, others: Sequence[Baseline]) -> dict[str, object]:
    """Return every score of every baseline with its interval, and the differences."""
    measured = {
        name: {
            score.name: {"value": found.value, "low": found.low, "high": found.high}
            for score in SCORES
            if (found := estimate(rankings.statistics(score), resamples=_RESAMPLES, seed=0)).finite
        }
        for name, rankings in [(MODEL, answers), *((other.name, other.rankings) for other in others)]
    }
    ahead = [
        {"of": one.of, "score": one.score.name, "by": one.by.value, "low": one.by.low, "high": one.by.high}
        for one in _compared(answers, others)
    ]
    return {"scores": measured, "ahead": ahead}


def _beside(answers: Rankings, others: Sequence[Baseline], left_out: Sequence[str]) -> Section:
    lines = []
    for name, how, rankings in [(MODEL, "", answers), *((one.name, one.how, one.rankings) for one in others)]:
        found = estimates([rankings.statistics(score) for score in SCORES], resamples=_RESAMPLES, seed=0)
        lines.append((f"{name} ({how})" if how else name, *map(_told, found)))
    unknown = int((answers.items == UNKNOWN).sum())
    note = " ".join([*(one.told() for one in _compared(answers, others)), *left_out])
    if unknown:
        note += f" {unknown:,} of {len(answers.items):,} held-out items are unknown and count as missed by all."
    header = ("", *(score.title for score in SCORES))
    return Section("The model beside simple ones", note, header=header, lines=tuple(lines))


def _told(found: Estimate) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" if found.finite else ""


def _bands() -> Section:
    return Section(
        "Known and unknown items",
        f"Share of held-out items among the first {REACH}, by how many users of the pool have the item; 0 are those "
        "that training never shows.",
        "bands.png", f"Recall@{REACH} by the number of an item's users, of the model and of its baselines",
    )  # fmt: skip


def _plot(rows: Sequence[tuple[str, Rankings]], path: Path) -> None:
    plot = figure(6.4, 3.4)
    axes = plot.subplots()
    names = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(_BANDS)]
    names.append(f"{_BANDS[-1]}+")
    for (name, rankings), colour in zip(rows, (ACCENT, INK, MUTED, WARN), strict=False):
        known = rankings.items != UNKNOWN
        band = np.searchsorted(_BANDS, rankings.vocabulary.counts[rankings.items[known]], "right") - 1
        ranks = rankings.ranks[known]
        hits = np.bincount(band, ranks < REACH, len(_BANDS))
        all_ = np.bincount(band, minlength=len(_BANDS))
        there = all_ > 0
        axes.plot(
            np.flatnonzero(there), hits[there] / all_[there], color=colour, marker="o", markersize=4, linewidth=1.5,
            label=name,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1), xlabel="users who have the item", title=f"Recall@{REACH}")
    legend(plot, columns=4)
    save(plot, path)


def _some(answers: Rankings, examples: Histories, users: int) -> Section:
    vocabulary, wanted = answers.vocabulary, list[list[int]]([[] for _ in range(len(answers))])
    for place, item in zip(answers.of.tolist(), answers.items.tolist(), strict=True):
        wanted[place].append(item)

    def name(item: int) -> str:
        known = "(an unknown one)" if item == UNKNOWN else vocabulary.items[item]
        return vocabulary.names.get(known, known)

    lines = []
    for place, given in enumerate(examples.take(torch.arange(min(users, len(answers)))).given()):
        best = [
            f"{name(item)} ✓" if item in wanted[place] else name(item)
            for item in answers.top[place, :TOP].tolist()
            if item != UNKNOWN
        ]
        shown = [name(item) for item in given[:_GIVEN].tolist()] + (["..."] if len(given) > _GIVEN else [])
        lines.append((", ".join(shown), ", ".join(map(name, wanted[place])), ", ".join(best)))
    return Section(
        "What it recommends", f"The first {len(lines)} users of test; ✓ was held out.",
        header=("given", "held out", f"the first {TOP}"), lines=tuple(lines),
    )  # fmt: skip
