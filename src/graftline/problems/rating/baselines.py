"""What told ratings are to be compared with: means, biases, and the ratings of items that were rated alike.

They learn from the labelled users of train, as the head does; what has to be chosen is chosen on val.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from graftline.problems.rating.answers import RatingAnswers
from graftline.problems.rating.biases import Ridges, Told, item_sums, lines, predict
from graftline.problems.rating.examples import Rated
from graftline.score import Floats

MEAN, ITEMS, BIASES, NEIGHBOURS = "the mean rating", "item means", "biases", "items rated alike"
MOST_ITEMS = 8000
"""Items up to which those that were rated alike are computed: a matrix of all pairs, 256 MB."""
_ITEM, _USER = (0.3, 1.0, 3.0, 10.0, 30.0), (0.3, 1.0, 3.0, 10.0, 30.0)
_SHRINK, _NONE = (3.0, 10.0, 30.0, 100.0), (0.3, 1.0, 3.0)

Teller = Callable[[Told, Told], Floats]
"""What is given and what is asked for to the (m,) asked ratings, in deviations from the mean."""


@dataclass(frozen=True)
class Baseline:
    """Ratings without a trained network."""

    name: str
    how: str
    """In a few words, for people."""
    answers: RatingAnswers


def baselines(train: Rated, val: Rated, test: Rated, answers: RatingAnswers) -> tuple[list[Baseline], list[str]]:
    """Return the baselines' ratings of the test users, and which are left out, each in a sentence.

    `answers` are the model's: the baselines tell the same ratings, within the same ends.
    """
    of, items = answers.range, len(answers.vocabulary)

    def told(examples: Rated, chosen: np.ndarray) -> Told:
        ratings = (examples.rated.numpy() - of.mean) / of.deviation
        return Told(examples.of.numpy(), examples.ids.long().numpy(), ratings, len(examples)).where(chosen)

    learned = told(train, np.ones(len(train.ids), bool))
    (given, wanted), (seen, asked) = (
        (told(examples, ~examples.held_out.numpy()), told(examples, examples.held_out.numpy()))
        for examples in (val, test)
    )

    def error(teller: Teller) -> float:
        return float(np.square(teller(given, wanted) - wanted.ratings).sum())

    def baseline(name: str, how: str, teller: Teller) -> Baseline:
        ratings = np.clip(teller(seen, asked) * of.deviation + of.mean, of.least, of.largest)
        return Baseline(name, how, replace(answers, predicted=ratings, half=None))

    means = min((_item_means(learned, items, ridge) for ridge in _ITEM), key=lambda one: error(one[1]))
    pairs = [Ridges(item, user) for item in _ITEM for user in _USER]
    ridges, biases = min(((ridges, _biases(learned, items, ridges)) for ridges in pairs), key=lambda one: error(one[1]))
    found = [
        baseline(BIASES, f"user and item, ridges {ridges.user:g} and {ridges.item:g}", biases),
        baseline(ITEMS, f"drawn to the mean, ridge {means[0]:g}", means[1]),
        baseline(MEAN, "of all", lambda _, asked: np.zeros(len(asked.of))),
    ]
    if items > MOST_ITEMS:
        return found, [
            f"{NEIGHBOURS.capitalize()} are left out: they are computed up to {MOST_ITEMS:,} items, here are {items:,}."
        ]
    how, neighbours = _neighbours(learned, items, ridges, error)
    return [baseline(NEIGHBOURS, how, neighbours), *found], []


def _item_means(learned: Told, items: int, ridge: float) -> tuple[float, Teller]:
    counts = np.bincount(learned.items, minlength=items)
    known = np.append(np.bincount(learned.items, learned.ratings, items) / (counts + ridge), 0.0)
    return ridge, lambda _, asked: known[asked.items]


def _biases(learned: Told, items: int, ridges: Ridges) -> Teller:
    sums, counts = item_sums(learned, items, ridges)
    known: Floats = sums / (counts + ridges.item)
    return lambda given, asked: predict(known, given, asked, ridges)


def _neighbours(learned: Told, items: int, ridges: Ridges, error: Callable[[Teller], float]) -> tuple[str, Teller]:
    """Return the ratings of items by those that were rated alike, what biases tell taken off.

    Sarwar et al., 2001; likenesses of few users are drawn to 0, and so are sums of little likeness (Koren, "Factor in
    the neighbors", ACM TKDD 4 (2010), eq. 2 and 3).
    """
    sums, counts = item_sums(learned, items, ridges)
    known = np.append(sums / (counts + ridges.item), 0.0)

    def left(of: Told) -> tuple[Floats, Floats]:
        means, slopes = lines(of, known[of.items], ridges)
        return of.ratings - means[of.of] - slopes[of.of] * known[of.items], means

    residuals, _ = left(learned)
    there, table = np.zeros((learned.users, items), np.float32), np.zeros((learned.users, items), np.float32)
    there[learned.of, learned.items], table[learned.of, learned.items] = 1, residuals
    products, both = table.T @ table, there.T @ there
    squares = np.square(table).T @ there  # of each item's ratings by users who rated the other one too
    del table, there
    norm = np.sqrt(squares * squares.T)
    cosine = products / np.where(norm > 0, norm, 1)
    np.fill_diagonal(cosine, 0)

    def teller(shrink: float, none: float) -> Teller:
        likeness = np.pad(cosine * both / (both + shrink), (0, 1))  # an unknown item is like none

        def tell(given: Told, asked: Told) -> Floats:
            told = predict(known[:-1], given, asked, ridges)
            own, _ = left(given)
            starts = np.searchsorted(given.of, np.arange(given.users + 1))
            for user in np.unique(asked.of).tolist():
                mine = slice(starts[user], starts[user + 1])
                wanted = asked.of == user
                alike = likeness[np.ix_(asked.items[wanted], given.items[mine])]
                told[wanted] += alike @ own[mine] / (np.abs(alike).sum(axis=1) + none)
            return told

        return tell

    tellers = [(shrink, none, teller(shrink, none)) for shrink in _SHRINK for none in _NONE]
    shrink, none, best = min(tellers, key=lambda one: error(one[2]))
    return f"on the biases; likeness drawn to 0 by {shrink:g} users, sums by {none:g}", best
