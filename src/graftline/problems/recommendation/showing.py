"""What a person is shown of recommendations: the model beside its baselines, by how known items are, and some users."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from graftline.jsonfile import write_json
from graftline.plots import ACCENT, INK, MUTED, WARN, figure, legend, save
from graftline.problems import beside
from graftline.problems.beside import MODEL, Ahead, ahead
from graftline.problems.recommendation.answers import Rankings
from graftline.problems.recommendation.baselines import EASE, POPULARITY, Baseline, baselines
from graftline.problems.recommendation.examples import UNKNOWN, Histories
from graftline.problems.recommendation.scores import COLD, NDCG, REACH, SCORES, TOP, WARM
from graftline.problems.sections import Section, write_sections

_BANDS = (0, 1, 5, 10, 20, 50, 100, 300)
"""From how many users on an item is in the next band; in the first are those that train never shows."""
_GIVEN = 8
"""How many items of a history are shown."""


def show(answers: Rankings, examples: Histories, dataset: Path, out: Path, users: int) -> None:
    """Write baselines.json, bands.png and the report's sections."""
    others, left_out = baselines(dataset, examples, answers.vocabulary)
    rows = [(MODEL, answers), *((other.name, other.rankings) for other in others)]
    write_json(beside.facts(dict(rows), SCORES, _compared(answers, others)), out / "baselines.json")
    _plot(rows, out / "bands.png")
    write_sections([_beside(answers, others, left_out), _bands(), _some(answers, examples, users)], out)


def _compared(answers: Rankings, others: Sequence[Baseline]) -> list[Ahead]:
    """Return what is to be said: against EASE on what it can rank and on all, against the others on cold items."""
    found = []
    for other in others:
        scores = (WARM, NDCG) if other.name == EASE else (NDCG, COLD) if other.name == POPULARITY else (COLD,)
        found += [ahead(answers, other.name, other.rankings, score) for score in scores]
    return [one for one in found if one.by.finite]


def _beside(answers: Rankings, others: Sequence[Baseline], left_out: Sequence[str]) -> Section:
    all_ = [(MODEL, "", answers), *((one.name, one.how, one.rankings) for one in others)]
    lines = tuple(beside.line(name, how, rankings, SCORES) for name, how, rankings in all_)
    unknown = int((answers.items == UNKNOWN).sum())
    note = " ".join([*(one.told(one.score.title) for one in _compared(answers, others)), *left_out])
    if unknown:
        note += f" {unknown:,} of {len(answers.items):,} held-out items are unknown and count as missed by all."
    header = ("", *(score.title for score in SCORES))
    return Section("The model beside simple ones", note, header=header, lines=lines)


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
