"""How high an item is rated as a rule, and how high a user rates: means that are drawn to 0 where little is known.

Y. Koren, R. Bell, C. Volinsky, "Matrix factorization techniques for recommender systems", IEEE Computer 42 (2009), eq.
3 and 4: the biases of least squares with a ridge. Beside his mean a user has a slope: how far he follows the items, 1
as a rule, 0 of one who rates all alike. All ratings here are in deviations from the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graftline.score import Floats, Integers

_ROUNDS = 12
_ITEM, _USER, _SLOPE = (1.0, 3.0, 10.0), (0.3, 1.0, 3.0, 10.0), (1.0, 3.0, 10.0)
FIXED = 1e6
"""The ridge of a slope that is 1 of everyone."""


@dataclass(frozen=True)
class Ridges:
    """How strongly each bias is drawn to what it is without ratings: as by so many ratings."""

    item: float
    user: float
    slope: float = FIXED


@dataclass(frozen=True)
class Told:
    """Ratings as arrays, an element a rating."""

    of: Integers
    """(m,) the number of its user, from 0."""
    items: Integers
    """(m,) the item's; below 0 of an unknown one."""
    ratings: Floats
    """(m,) in deviations from the mean."""
    users: int

    def where(self, chosen: np.ndarray) -> Told:
        return Told(self.of[chosen], self.items[chosen], self.ratings[chosen], self.users)


def item_sums(told: Told, items: int, ridges: Ridges) -> tuple[Floats, Integers]:
    """Return (items,): the sum of each item's ratings, each less its user's mean, and their number.

    Users' and items' biases in turns, until they hardly change any more.
    """
    counts, each = np.bincount(told.items, minlength=items), np.bincount(told.of, minlength=told.users)
    sums = _sums(told.items, told.ratings, items)
    for _ in range(_ROUNDS):
        left = told.ratings - (sums / (counts + ridges.item))[told.items]
        means = _sums(told.of, left, told.users) / (each + ridges.user)
        sums = _sums(told.items, told.ratings - means[told.of], items)
    return sums, counts


def _sums(of: Integers, values: Floats, count: int) -> Floats:
    """Return (count,): the sum of the values of each number in `of`."""
    found: Floats = np.bincount(of, values, count).astype(np.float64)
    return found


def lines(given: Told, of_item: Floats, ridges: Ridges) -> tuple[Floats, Floats]:
    """Return (users,) each one's mean and slope, by given ratings; `of_item` is (m,) their items' biases."""
    ones, at, seen = np.ones(len(given.of)), of_item, given.ratings
    sums = [_sums(given.of, values, given.users) for values in (ones, at, at * at, seen, at * seen)]
    total, x, xx, y, xy = sums[0] + ridges.user, sums[1], sums[2] + ridges.slope, sums[3], sums[4] + ridges.slope
    area = total * xx - x * x
    return (xx * y - x * xy) / area, (total * xy - x * y) / area


def predict(biases: Floats, given: Told, asked: Told, ridges: Ridges) -> Floats:
    """Return (m,) what is told of the asked ratings, by the items' biases and what is given of their users."""
    known = np.append(biases, 0.0)  # an unknown item is the last
    means, slopes = lines(given, known[given.items], ridges)
    found: Floats = means[asked.of] + slopes[asked.of] * known[asked.items]
    return found


def choose(told: Told, items: int, hidden: np.ndarray, *, slopes: bool = True) -> Ridges:
    """Return the ridges by which the (m,) `hidden` ratings are best told from the others."""
    given, asked = told.where(~hidden), told.where(hidden)
    best, least = Ridges(_ITEM[-1], _USER[-1]), np.inf
    for of_item in _ITEM:
        for of_user in _USER:
            sums, counts = item_sums(given, items, Ridges(of_item, of_user))
            for slope in (*(_SLOPE if slopes else ()), FIXED):
                ridges = Ridges(of_item, of_user, slope)
                error = np.square(predict(sums / (counts + of_item), given, asked, ridges) - asked.ratings).sum()
                if error < least:
                    best, least = ridges, error
    return best
