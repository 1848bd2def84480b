"""What a person is shown of ratings: the model beside its baselines, told and actual, and some users."""

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
from graftline.problems.rating.answers import RatingAnswers
from graftline.problems.rating.baselines import baselines
from graftline.problems.rating.examples import Rated, read
from graftline.problems.rating.scores import ORDER
from graftline.problems.recommendation.examples import UNKNOWN
from graftline.problems.regression_parameters import MAE, R2, RMSE
from graftline.problems.sections import Section, write_sections

_SCORES = (R2, MAE, RMSE, ORDER)
_BANDS = (0, 1, 5, 10, 20, 50, 100, 300)
"""From how many users on an item is in the next band; in the first are those that no labelled user of train rated."""
_SHOWN = 8
"""How many items of a user are shown."""


def show(answers: RatingAnswers, examples: Rated, dataset: Path, out: Path, users: int) -> None:
    """Write baselines.json, bands.png and the report's sections."""
    train, val = (read(dataset, split, answers.vocabulary) for split in ("train", "val"))
    others, left_out = baselines(train, val, examples, answers)
    compared = [one for other in others if (one := ahead(answers, other.name, other.answers, R2)).by.finite]
    rows = [(MODEL, "", answers), *((other.name, other.how, other.answers) for other in others)]
    write_json(beside.facts({name: of for name, _, of in rows}, _SCORES, compared), out / "baselines.json")
    _plot(rows, np.bincount(train.ids.long().numpy(), minlength=len(answers.vocabulary)), out / "bands.png")
    write_sections([_beside(rows, compared, left_out, answers), _bands(), _some(answers, examples, users)], out)


def _beside(
    rows: Sequence[tuple[str, str, RatingAnswers]], compared: Sequence[Ahead], left_out: Sequence[str],
    answers: RatingAnswers,
) -> Section:  # fmt: skip
    lines = tuple(beside.line(name, how, told, _SCORES) for name, how, told in rows)
    note = " ".join([*(one.told("R2") for one in compared), *left_out])
    if answers.unknown:
        note += (
            f" {answers.unknown:,} of {len(answers):,} held-out ratings are of items that the trunk does not know: of "
            "these all tell what the user gives as a rule."
        )
    header = ("", *(score.title for score in _SCORES))
    return Section("The model beside simple ones", note, header=header, lines=lines)


def _bands() -> Section:
    return Section(
        "Known and unknown items",
        "How far told ratings are off (RMSE), by how many users of train rated the item; 0 are those that nobody did.",
        "bands.png", "RMSE by the number of an item's ratings, of the model and of its baselines",
    )  # fmt: skip


def _plot(rows: Sequence[tuple[str, str, RatingAnswers]], counts: np.ndarray, path: Path) -> None:
    plot = figure(6.4, 3.4)
    axes = plot.subplots()
    names = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(_BANDS)]
    names.append(f"{_BANDS[-1]}+")
    styles = ((ACCENT, "-"), (INK, "-"), (WARN, "-"), (MUTED, "-"), (MUTED, "--"))
    for (name, _, answers), (colour, line) in zip(rows, styles, strict=False):
        users = np.where(answers.items == UNKNOWN, 0, counts[answers.items])
        band = np.searchsorted(_BANDS, users, "right") - 1
        squares = np.bincount(band, np.square(answers.ratings - answers.predicted), len(_BANDS))
        all_ = np.bincount(band, minlength=len(_BANDS))
        there = all_ > 0
        axes.plot(
            np.flatnonzero(there), np.sqrt(squares[there] / all_[there]), color=colour, linestyle=line, marker="o",
            markersize=4, linewidth=1.5, label=name,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="users of train who rated the item", title="Root mean squared error")
    legend(plot, columns=3)
    save(plot, path)


def _some(answers: RatingAnswers, examples: Rated, users: int) -> Section:
    vocabulary = answers.vocabulary

    def name(item: int) -> str:
        known = "(an unknown one)" if item == UNKNOWN else vocabulary.items[item]
        return vocabulary.names.get(known, known)

    def some(parts: list[str]) -> str:
        return ", ".join([*parts[:_SHOWN], *(["..."] if len(parts) > _SHOWN else [])])

    chosen = examples.take(torch.arange(min(users, len(examples))))
    lines = []
    for place, row in enumerate(chosen.rows.tolist()):
        one, mine = chosen.take(torch.tensor([place])), answers.rows == row
        given = ~one.held_out
        pairs = zip(one.ids[given].tolist(), one.rated[given].tolist(), strict=True)
        told = zip(answers.items[mine], answers.predicted[mine], answers.ratings[mine], strict=True)
        lines.append(
            (
                some([f"{name(item)} {rating:g}" for item, rating in pairs]),
                some([f"{name(int(item))} {guess:.2f} ({rating:g})" for item, guess, rating in told]),
            )
        )
    return Section(
        "What it tells", f"The first {len(lines)} users of test; in brackets what was held out.",
        header=("given", "told"), lines=tuple(lines),
    )  # fmt: skip
