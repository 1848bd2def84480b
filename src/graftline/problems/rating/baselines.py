"""What told ratings are to be compared with: means, biases, and the ratings of items that were rated alike.

They learn from the labelled users of train, as the head does; what has to be chosen is chosen on val.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from graftline.problems.rating.answers import RatingAnswers
from graftline.problems.rating.biases import Ridges, Told, item_sums, lines, predict
from graftline.problems.rating.examples import Rated
from graftline.score import Floats

MEAN, ITEMS, BIASES, NEIGHBOURS = "the mean rating", "item means", "biases", "items rated alike"
MOST_ITEMS = 8000
"""Items up to which those that were rated alike are computed: four matrices of all pairs at once, 256 MB each."""
_USERS = 2000
"""Users whose ratings are a table at once."""
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
    how, neighbours = _neighbours(learned, items, ridges, given, wanted)
    return [baseline(NEIGHBOURS, how, neighbours), *found], []


def _item_means(learned: Told, items: int, ridge: float) -> tuple[float, Teller]:
    counts = np.bincount(learned.items, minlength=items)
    known = np.append(np.bincount(learned.items, learned.ratings, items) / (counts + ridge), 0.0)
    return ridge, lambda _, asked: known[asked.items]


def _biases(learned: Told, items: int, ridges: Ridges) -> Teller:
    sums, counts = item_sums(learned, items, ridges)
    known: Floats = sums / (counts + ridges.item)
    return lambda given, asked: predict(known, given, asked, ridges)


def _neighbours(learned: Told, items: int, ridges: Ridges, given: Told, wanted: Told) -> tuple[str, Teller]:
    """Return the ratings of items by those that were rated alike, what biases tell taken off.

    Sarwar et al., 2001; likenesses of few users are drawn to 0, and so are sums of little likeness (Koren, "Factor in
    the neighbors", ACM TKDD 4 (2010), eq. 2 and 3). By how much is what tells `wanted` best from `given`.
    """
    sums, counts = item_sums(learned, items, ridges)
    known = np.append(sums / (counts + ridges.item), 0.0)
    cosine, both = _cosines(replace(learned, ratings=_left(learned, known, ridges)), items)

    def likeness(shrink: float) -> np.ndarray:
        found = np.zeros((items + 1, items + 1), np.float32)  # an unknown item is like none
        np.multiply(cosine, both, out=found[:-1, :-1])
        found[:-1, :-1] /= both + shrink
        return found

    least, best = np.inf, (_SHRINK[0], _NONE[0])
    told = predict(known[:-1], given, wanted, ridges)
    for shrink in _SHRINK:
        totals, sizes = _by_likeness(likeness(shrink), replace(given, ratings=_left(given, known, ridges)), wanted)
        for none in _NONE:
            error = float(np.square(told + totals / (sizes + none) - wanted.ratings).sum())
            if error < least:
                least, best = error, (shrink, none)
    shrink, none = best

    def tell(given: Told, asked: Told) -> Floats:
        own = replace(given, ratings=_left(given, known, ridges))
        totals, sizes = _by_likeness(likeness(shrink), own, asked)
        found: Floats = predict(known[:-1], given, asked, ridges) + totals / (sizes + none)
        return found

    return f"on the biases; likeness drawn to 0 by {shrink:g} users, sums by {none:g}", tell


def _left(of: Told, known: Floats, ridges: Ridges) -> Floats:
    """Return (m,) what users' lines leave of ratings."""
    means, slopes = lines(of, known[of.items], ridges)
    found: Floats = of.ratings - means[of.of] - slopes[of.of] * known[of.items]
    return found


def _cosines(left: Told, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (items, items) float32: how alike two items were rated by those who rated both, and how many did."""
    products, both, squares = (np.zeros((items, items), np.float32) for _ in range(3))
    starts = range(0, left.users, _USERS)
    ends = np.searchsorted(left.of, [*starts, left.users])
    for start, (first, end) in zip(starts, pairwise(ends.tolist()), strict=True):
        rows, mine = left.of[first:end] - start, left.items[first:end]
        there, table = (np.zeros((min(_USERS, left.users - start), items), np.float32) for _ in range(2))
        there[rows, mine], table[rows, mine] = 1, left.ratings[first:end]
        products += table.T @ table
        both += there.T @ there
        squares += np.square(table).T @ there  # of each item's ratings by users who rated the other one too
    norm = squares * squares.T
    del squares
    np.sqrt(norm, out=norm)
    norm[norm == 0] = 1
    products /= norm
    np.fill_diagonal(products, 0)
    return products, both


def _by_likeness(likeness: np.ndarray, given: Told, asked: Told) -> tuple[Floats, np.ndarray]:
    """Return (m,) of each asked rating: what is given times its likeness, summed, and the sum of likenesses' sizes.

    Users come in order in both.
    """
    totals, sizes = np.zeros(len(asked.of)), np.zeros(len(asked.of), likeness.dtype)
    places = np.arange(given.users + 1)
    of_given, of_asked = (np.searchsorted(told.of, places).tolist() for told in (given, asked))
    for user in np.unique(asked.of).tolist():
        mine, wanted = (slice(ends[user], ends[user + 1]) for ends in (of_given, of_asked))
        alike = likeness[np.ix_(asked.items[wanted], given.items[mine])]
        totals[wanted], sizes[wanted] = alike @ given.ratings[mine], np.abs(alike).sum(axis=1)
    return totals, sizes
