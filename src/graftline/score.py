"""A score: how good a model's answers are, out of what each test row adds to a sum.

A row's statistics are a short vector: right answers and answers (accuracy), nats and tokens (perplexity), edits and
words (word error rate), gain and 1 (NDCG). A score turns the vectors' sum into a value, and says whether more of it is
better. Nothing else needs to know what is measured: intervals, the comparison with the champion, the lift, early
stopping, the gate, the report and the pages all take a score as it comes.

Rows are what is drawn anew in the bootstrap (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993,
ch. 6 and 13): a sentence with all its words, a document with all its tokens. Words of one sentence are right or wrong
together, and drawn one by one they would promise more than the data knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_AT_ONCE = 2_000_000  # weights in memory: 16 MB

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def finite(self) -> bool:
        """Whether all three are numbers: not where the score is not defined on the rows."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))

    def metrics(self, name: str) -> dict[str, float]:
        """Return what metrics.json holds of it: `name`, `name_low`, `name_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def told(self, style: str, scale: int = 1) -> str:
        """Return it for people, as `0.5 (0.4 to 0.6)`; `style` is that of each number."""
        value, low, high = (format(scale * number, style) for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


@dataclass(frozen=True)
class Score:
    """What is measured, apart from any model."""

    name: str
    """In metrics.json, the gate and the record: lower-case letters, digits and `_`."""
    title: str
    """For people, after `test`: `accuracy a word`."""
    value: Callable[[Floats], Floats] | None = None
    """(..., k) sums of rows' statistics to (...) values; None where no sum of a few numbers tells the value."""
    higher: bool = True
    """Whether more is better."""
    share: bool = True
    """Whether it is a fraction from 0 to 1, shown in percent and its changes in points."""
    lowest: float = 0.0
    """The least value that there can be, and for a share 1 is the largest."""
    bounded: bool = True
    """Whether a share ends at 1; not where there can be more of what is counted, such as edits, than of the whole."""

    @property
    def highest(self) -> float:
        return 1.0 if self.share and self.bounded else math.inf

    @property
    def direction(self) -> str:
        return "higher" if self.higher else "lower"

    def gain(self, new: float, old: float) -> float:
        """Return by how much `new` is better than `old`."""
        return new - old if self.higher else old - new


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """What each test row adds to a score."""

    score: Score
    rows: Integers
    """(n,) numbers of the rows in the raw data, ascending, each once."""
    statistics: Floats
    """(n, k)."""
    weights: Floats | None = field(default=None, kw_only=True)
    """(n,) how much each row counts; None where all count alike."""

    @classmethod
    def of_units(cls, score: Score, rows: Integers, columns: Sequence[NDArray[Any]]) -> RowStatistics:
        """Return the sums by row of what each unit (a row, a word, a token) adds.

        Args:
            score: that takes the sums.
            rows: (units,) the row of each unit.
            columns: k arrays of (units,).
        """
        known, place = np.unique(rows, return_inverse=True)
        sums = [np.bincount(place, weights=column, minlength=len(known)) for column in columns]
        return cls(score, known, np.stack(sums, axis=1))

    @property
    def weighed(self) -> Floats:
        """(n, k) what each row adds, as often as it counts."""
        return self.statistics if self.weights is None else self.statistics * self.weights[:, None]

    def values(self, draws: Floats) -> Floats:
        """Return (b,) values, where row i was drawn `draws[:, i]` times; draws are (b, n)."""
        return self._values(draws if self.weights is None else draws * self.weights)

    def _values(self, weights: Floats) -> Floats:
        assert self.score.value is not None
        return self.score.value(self.sums(weights))

    def sums(self, weights: Floats) -> Floats:
        """Return (b, k) sums of the statistics, where row i counts `weights[:, i]` times; weights are (b, n)."""
        return (weights.astype(self.statistics.dtype) @ self.statistics).astype(np.float64)

    @cached_property
    def value(self) -> float:
        """The score on these rows; NaN where it is not defined on them (0 answers, one class only)."""
        return float(self.values(np.ones((1, len(self.rows))))[0])

    @property
    def most_resamples(self) -> int | None:
        """How many resamples are affordable, where a value is costly; None for any number."""
        return None


def ratio(sums: Floats) -> Floats:
    """Return the first of two sums over the second, NaN where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def estimate(measured: RowStatistics, *, resamples: int, seed: int) -> Estimate:
    """Return the score on the rows, and its 95% percentile interval by the bootstrap of rows.

    Where a mean over rows (a `ratio` of sums) has its best or worst value, every resample has it too, which proves
    nothing: as with n rows of which none is amiss, the interval then is the exact one of C. Clopper and E. Pearson,
    Biometrika 26 (1934). Rows of different weights count as L. Kish's effective number of rows, "Survey sampling",
    1965, 11.7. A score that is no such mean keeps the bootstrap's interval.
    """
    return estimates([measured], resamples=resamples, seed=seed)[0]


def estimates(measured: Sequence[RowStatistics], *, resamples: int, seed: int) -> list[Estimate]:
    """Return `estimate` of each: what has as many rows is measured on the same draws, which are then made once."""
    alike: dict[tuple[int, int | None], list[int]] = {}
    for place, one in enumerate(measured):
        if not math.isnan(one.value):  # not defined on the rows: drawing them again would take its time in vain
            alike.setdefault((len(one.rows), one.most_resamples), []).append(place)
    found = [Estimate(math.nan, math.nan, math.nan)] * len(measured)
    for places in alike.values():
        for place, drawn in zip(places, _values([measured[p] for p in places], resamples, seed), strict=True):
            found[place] = _estimate(measured[place], drawn)
    return found


def _estimate(measured: RowStatistics, drawn: Floats) -> Estimate:
    low, high = _percentiles(drawn)
    if measured.score.share and measured.score.value is ratio and low == high == measured.value:
        reach = float(exact_reach(_effective_rows(measured)))
        low = low - reach if low == measured.score.highest else low
        high = high + reach if high == measured.score.lowest else high
    return Estimate(measured.value, low, high)


def ends(
    measured: RowStatistics,
    values: Callable[[Floats], Floats],
    *,
    resamples: int,
    seed: int,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats]:
    """Return the (m,) low and high ends of several values' percentile intervals, by the bootstrap of rows.

    `values` are of (b, k) sums of the rows' statistics, (b, m); NaN where one is not defined on the rows drawn, and in
    what is returned where it is defined on none.
    """
    drawn = np.concatenate([values(measured.sums(draws)) for draws in _draws(len(measured.rows), resamples, seed)])
    low, high = np.full((2, drawn.shape[1]), np.nan)
    known = np.isfinite(drawn).any(axis=0)
    if known.any():
        low[known], high[known] = np.nanquantile(drawn[:, known], _tails(confidence), axis=0)
    return low, high


def exact_reach(rows: float | Floats, confidence: float = CONFIDENCE) -> Floats:
    """Return how far from 0 or 1 the interval of a share reaches that all of so many rows agree on."""
    return np.asarray(1 - _tails(confidence)[0] ** (1 / np.maximum(rows, 1)))


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def _effective_rows(measured: RowStatistics) -> float:
    """Return how many rows of one weight tell as much; a row that adds nothing proves nothing."""
    adds = measured.statistics[:, 1] != 0
    weights = adds.astype(np.float64) if measured.weights is None else adds * measured.weights.astype(np.float64)
    return float(weights.sum() ** 2 / np.square(weights).sum())


def difference(challenger: RowStatistics, champion: RowStatistics, *, resamples: int, seed: int) -> Estimate:
    """Return the challenger's value less the champion's, and its 95% percentile interval by the paired bootstrap.

    A row is drawn with what both models made of it, so what is hard for both cancels: P. Koehn, "Statistical
    significance tests for machine translation evaluation", EMNLP 2004.

    Raises:
        ValueError: the two answered different rows, or none.
    """
    if not np.array_equal(challenger.rows, champion.rows) or len(champion.rows) == 0:
        raise ValueError(f"answers on {len(challenger.rows)} and {len(champion.rows)} rows cannot be paired")
    one, two = _values([challenger, champion], resamples, seed)
    low, high = _percentiles(one - two)
    return Estimate(challenger.value - champion.value, low, high)


def t_interval(values: Sequence[float]) -> Estimate:
    """Return the mean and its 95% interval by Student's t with n - 1 degrees of freedom.

    Student (W. S. Gosset), "The probable error of a mean", Biometrika 6 (1908). On differences of pairs this is the
    paired t interval.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values: an interval needs at least 2")
    from scipy.special import stdtrit

    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * math.sqrt(variance / len(values))
    return Estimate(mean, mean - half, mean + half)


def _values(measured: Sequence[RowStatistics], resamples: int, seed: int) -> list[Floats]:
    """Return (resamples,) values of each of what was measured on the same rows, on the same draws of them."""
    limits = [one.most_resamples for one in measured if one.most_resamples is not None]
    parts = [
        [one.values(weights) for one in measured]
        for weights in _draws(len(measured[0].rows), min([resamples, *limits]), seed)
    ]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _draws(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield (b, rows) float64: how often each row was drawn in b of the resamples, of as many rows as there are."""
    generator = np.random.default_rng(seed)
    most = max(1, _AT_ONCE // rows)
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def _percentiles(drawn: Floats) -> tuple[float, float]:
    """Return the ends of the interval; a resample on which the score is not defined is left out."""
    low, high = np.nanquantile(drawn, _tails(CONFIDENCE)) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return float(low), float(high)


# What metrics.json says of scores, and how it is read again.

PRIMARY, SCORES = DESCRIPTIONS = ("primary", "scores")
"""What metrics.json holds besides numbers by name."""


def as_metrics(measured: Mapping[Score, Estimate]) -> dict[str, Any]:
    """Return what metrics.json holds of the scores, the primary one first.

    `accuracy`, `accuracy_low`, `accuracy_high` of each for whatever reads numbers by name; `primary`; and `scores`, by
    name: `value`, `interval`, `direction`, `title`, `share`. A score that the rows do not define is left out.
    """
    flat: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for score, found in measured.items():
        if not math.isfinite(found.value):
            continue
        sure = math.isfinite(found.low) and math.isfinite(found.high)
        flat |= found.metrics(score.name) if sure else {score.name: found.value}
        scores[score.name] = {
            "value": found.value,
            "interval": [found.low, found.high] if sure else None,
            "direction": score.direction,
            "title": score.title,
            "share": score.share,
        }
    return flat | {PRIMARY: next(iter(measured)).name, SCORES: scores}


@dataclass(frozen=True)
class Told:
    """One score as metrics.json tells it."""

    name: str
    value: float
    low: float | None
    high: float | None
    higher: bool
    title: str
    share: bool


_BEFORE = {
    "accuracy": (True, True),
    "perplexity": (False, False),
    "ece": (False, True),
    "macro_f1": (True, True),
    "min_class_recall": (True, True),
}
"""Higher is better, and a share: of the scores that metrics.json had when it named no `primary` and no `scores`."""


def told_scores(metrics: Mapping[str, Any]) -> list[Told]:
    """Return the scores that metrics tell of, the primary one first; those of an older release by their names."""
    scores = metrics.get(SCORES)
    if not isinstance(scores, Mapping):
        scores = {
            name: {
                "value": metrics[name],
                "interval": [metrics.get(f"{name}_low"), metrics.get(f"{name}_high")],
                "direction": "higher" if higher else "lower",
                "title": name.replace("_", " "),
                "share": share,
            }
            for name, (higher, share) in _BEFORE.items()
            if name in metrics
        }
    found = [_told(str(name), values) for name, values in scores.items()]
    return sorted((told for told in found if told), key=lambda told: told.name != primary_name(metrics))


def told_primary(metrics: Mapping[str, Any]) -> Told | None:
    """Return the primary score as metrics tell it; None where the rows do not define it."""
    return next((told for told in told_scores(metrics) if told.name == primary_name(metrics)), None)


def _told(name: str, values: Any) -> Told | None:
    """Return the score; None if it is none: metrics come out of a store, where anything may lie."""
    try:
        value, ends = float(values["value"]), values["interval"] or (None, None)
        low, high = (None if end is None else float(end) for end in ends)
        title, higher, share = str(values["title"]), values["direction"] == "higher", bool(values["share"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not all(number is None or math.isfinite(number) for number in (value, low, high)):
        return None
    return Told(name, value, low, high, higher, title, share)


def primary_name(metrics: Mapping[str, Any]) -> str:
    """Return the name of the score that a model was judged by; accuracy of a release that does not say."""
    named = metrics.get(PRIMARY)
    return named if isinstance(named, str) else next(iter(_BEFORE))
