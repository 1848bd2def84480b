"""How far explanations can be believed: what becomes of the answer when what they name is taken away.

    comprehensiveness   how much probability the answer loses without the parts that are ranked first: more is better
    sufficiency         how much it loses when only these are shown: less is better
    deletion            the area under its probability as more and more of them are hidden: less is better

J. DeYoung et al., "ERASER: a benchmark to evaluate rationalized NLP models", ACL 2020, section 4.2: the mean over the
first 1, 5, 10, 20 and 50% of the parts, at least one (they divide by one more, for nothing hidden). V. Petsiuk et al.,
"RISE", BMVC 2018: the curve. Each method is compared with a random order, and with itself on a model with random
weights (J. Adebayo et al., NeurIPS 2018): one that names the same parts there tells of the input, not of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graftline.explain.methods import CELLS
from graftline.explain.names import COMPREHENSIVENESS, DELETION, MEASURES, SUFFICIENCY, metric, title
from graftline.problems.explained import Explained, Floats
from graftline.score import Estimate, Integers, RowStatistics, Score, difference, estimate

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
STEPS = 10
"""Of the deletion curve."""
RANDOM = "random_order"
ORDERS = 3
"""Random orders of each example; their mean is what is compared with."""


@dataclass(frozen=True)
class Measured:
    """What a method's ranking is worth."""

    method: str
    values: dict[str, Estimate]
    """Each measure by its name."""
    over_random: Estimate | None = None
    """By how much its area under the deletion curve is smaller than that of a random order; None of that itself."""
    over_weights: Estimate | None = None
    """And than that of the same method on the model with random weights."""

    @property
    def margin(self) -> float | None:
        """What it is surely better by than both; negative if it may be worse than one."""
        if self.over_random is None or self.over_weights is None:
            return None
        return min(self.over_random.low, self.over_weights.low)

    @property
    def verdict(self) -> str:
        """What to say of it."""
        if self.over_random is None or self.over_weights is None:
            return "to compare with"
        if self.over_random.low <= 0:
            return "no better than a random order: do not believe its pictures"
        if self.over_weights.low <= 0:
            return "better than a random order, but no better than on a model with random weights: it shows the input"
        return "better than a random order and than on a model with random weights"

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `explain_occlusion_deletion`, `..._low`, `..._high`, `explain_occlusion_margin`."""
        found: dict[str, float] = {}
        named = {**self.values, "over_random": self.over_random, "over_weights": self.over_weights}
        for name, value in named.items():
            if value is not None:
                found |= value.metrics(metric(self.method, name))
        return found | ({} if self.margin is None else {metric(self.method, "margin"): self.margin})

    @property
    def title(self) -> str:
        return title(self.method)


def measure(
    explained: Explained, found: Mapping[str, Floats], at_random: Mapping[str, Floats], rows: Integers, *,
    resamples: int, seed: int,
) -> list[Measured]:  # fmt: skip
    """Return what each method is worth, and first a random order.

    Args:
        explained: n answers.
        found: (n, most) numbers of each method.
        at_random: the same on the model with random weights.
        rows: (n,) ascending row numbers; rows are drawn again for the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap and the random orders.
    """
    draws = np.random.default_rng(seed)
    orders = [_measures(explained, draws.random(explained.there.shape)) for _ in range(ORDERS)]
    chance = {score: np.mean([one[score] for one in orders], axis=0) for score in MEASURES}

    def statistics(values: dict[Score, Floats], score: Score) -> RowStatistics:
        return RowStatistics(score, rows, np.stack([values[score], np.ones(len(rows))], axis=1))

    def estimates(values: dict[Score, Floats]) -> dict[str, Estimate]:
        return {
            score.name: estimate(statistics(values, score), resamples=resamples, seed=seed) for score in MEASURES
        }  # fmt: skip

    def gain(values: dict[Score, Floats], other: dict[Score, Floats]) -> Estimate:
        less, more = statistics(values, DELETION), statistics(other, DELETION)
        return difference(more, less, resamples=resamples, seed=seed)

    made = [Measured(RANDOM, estimates(chance))]
    for method, numbers in found.items():
        mine, theirs = _measures(explained, numbers), _measures(explained, at_random[method])
        made.append(Measured(method, estimates(mine), gain(mine, chance), gain(mine, theirs)))
    return made


def _measures(explained: Explained, found: Floats) -> dict[Score, Floats]:
    """Return (n,) values of each measure where parts are ranked by their (n, most) numbers, the largest first."""
    ranks = _ranks(explained, found)
    parts = explained.parts[:, None]
    first = np.ceil(np.array(SHARES) * parts - 1e-9).astype(np.int64)  # (n, shares)
    steps = np.round(np.linspace(0, 1, STEPS + 1) * parts).astype(np.int64)  # (n, steps + 1)
    without = _probabilities(explained, ranks, np.concatenate([first, steps], axis=1), first_shown=False)
    only = _probabilities(explained, ranks, first, first_shown=True)
    hidden, curve = without[:, : len(SHARES)], without[:, len(SHARES) :]
    whole = curve[:, :1]
    return {
        COMPREHENSIVENESS: (whole - hidden).mean(axis=1),
        SUFFICIENCY: (whole - only).mean(axis=1),
        DELETION: (curve[:, :-1] + curve[:, 1:]).mean(axis=1) / 2,
    }


def _ranks(explained: Explained, found: Floats) -> Integers:
    """Return (n, most): the place of each part, from 0, when the largest numbers come first."""
    order = np.argsort(np.where(explained.there, -found, np.inf), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(explained.most), order.shape), axis=1)
    return ranks


def _probabilities(explained: Explained, ranks: Integers, counts: Integers, *, first_shown: bool) -> Floats:
    """Return (n, c): the answers' probabilities with so many parts, the first by rank, hidden, or alone shown."""
    places = np.repeat(np.arange(len(explained)), counts.shape[1])
    asked, back = np.unique(np.stack([places, counts.ravel()], axis=1), axis=0, return_inverse=True)
    found = np.empty(len(asked))
    step = max(1, CELLS // explained.most)
    for start in range(0, len(asked), step):
        some, count = asked[start : start + step].T
        first = ranks[some] < count[:, None]
        kept = (first if first_shown else ~first) & explained.there[some]
        found[start : start + step] = explained.log_probabilities(some, kept)
    return np.exp(found)[back.ravel()].reshape(counts.shape)
