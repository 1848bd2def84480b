"""The bootstrap of rows against what is known exactly, and what metrics.json says of scores, of now and of before."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from graftline.environment import ROOT
from graftline.problems.scores import MIN_CLASS_RECALL, class_rows
from graftline.score import (
    Estimate,
    RowStatistics,
    Score,
    as_metrics,
    difference,
    ends,
    estimate,
    estimates,
    primary_name,
    ratio,
    t_interval,
    told_scores,
)

RIGHT = Score("right", "share of right answers", ratio)
NATS = Score("nats", "nats a token", ratio, higher=False, share=False)


def of_rows(values: np.ndarray, weights: np.ndarray | None = None, score: Score = RIGHT) -> RowStatistics:
    weights = np.ones(len(values)) if weights is None else weights
    return RowStatistics(score, np.arange(len(values)), np.stack([values, weights], axis=1))


def test_the_interval_of_a_proportion_is_that_of_the_binomial() -> None:
    """The count of right rows in a resample is Binomial(n, share): the percentiles are its quantiles."""
    for right, count in ((160, 200), (291, 300), (500, 1000)):
        found = estimate(of_rows(np.arange(count) < right), resamples=20_000, seed=1)
        low, high = binom.ppf([0.025, 0.975], count, right / count) / count
        assert found.value == right / count
        assert (found.low, found.high) == pytest.approx((low, high), abs=1.01 / count)


def test_the_draws_of_a_seed_stay_what_they_are() -> None:
    """Exact numbers, as 0.1.0's code gave them with numpy 2.4.6: with other draws, records of one version and of the
    next could not be compared, and a gate could decide otherwise on the same answers. 40,000 resamples of 60 rows are
    drawn in two parts. A change that means to draw otherwise says so in the changelog and writes these anew."""
    place = np.arange(60)
    one, two = (of_rows(place % many, 1.0 + place % 4) for many in (3, 4))
    assert estimate(one, resamples=1000, seed=0) == Estimate(0.4, 0.306736004601227, 0.5)
    assert estimate(one, resamples=40_000, seed=0) == Estimate(0.4, 0.3105590062111801, 0.5)
    paired = difference(two, one, resamples=1000, seed=0)
    assert (paired.low, paired.high) == (0.0714285714285714, 0.3195384615384615)
    low, high = ends(one, lambda sums: sums[:, :1] / sums[:, 1:], resamples=1000, seed=0)
    assert (low.item(), high.item()) == (0.306736004601227, 0.5)


def test_scores_that_share_their_draws_have_the_intervals_that_each_has_alone() -> None:
    draw = np.random.default_rng(0)
    rows = [of_rows(draw.random(count) < share) for count, share in ((300, 0.8), (200, 0.7), (300, 0.3), (300, 1.0))]
    nowhere = of_rows(np.zeros(300), np.zeros(300))
    found = estimates([*rows, nowhere], resamples=1000, seed=3)
    assert found[:4] == [estimate(one, resamples=1000, seed=3) for one in rows] and not found[4].finite


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        found = estimate(of_rows(generator.random(200) < 0.8), resamples=400, seed=seed)
        covered += found.low <= 0.8 <= found.high
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize("count", [20, 300])
def test_no_mistake_at_all_is_no_certainty(count: int) -> None:
    """Clopper and Pearson: with 0 of n amiss the upper end is 1 - 0.025 ** (1 / n)."""
    perfect = estimate(of_rows(np.ones(count)), resamples=1000, seed=0)
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(0.025 ** (1 / count))
    assert binom.cdf(0, count, 1 - perfect.low) == pytest.approx(0.025)
    hopeless = estimate(of_rows(np.zeros(count)), resamples=1000, seed=0)
    assert (hopeless.low, hopeless.high) == (0, pytest.approx(1 - 0.025 ** (1 / count)))


def test_a_perfect_value_of_a_score_that_is_no_mean_over_rows_keeps_the_bootstraps_interval() -> None:
    """With one row of a class, 1,000 rows prove little of the recall of the worst class."""
    labels = np.arange(30) % 3
    perfect = class_rows(MIN_CLASS_RECALL, np.arange(30), labels, labels, 3)
    assert estimate(perfect, resamples=200, seed=0) == Estimate(1, 1, 1)


def test_rows_that_add_nothing_prove_nothing() -> None:
    weights = np.r_[np.ones(20), np.zeros(80)]
    found = estimate(of_rows(weights, weights), resamples=200, seed=0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))


def test_words_that_are_right_together_give_a_wider_interval_than_words_alone() -> None:
    """100 sentences of 20 words, all right or all wrong: there are 100 independent answers, not 2,000."""
    right = np.arange(100) % 5 > 0
    sentences = estimate(of_rows(20.0 * right, np.full(100, 20.0)), resamples=5000, seed=0)
    words = estimate(of_rows(np.repeat(right, 20)), resamples=5000, seed=0)
    assert sentences.value == words.value == 0.8
    width, naive = sentences.high - sentences.low, words.high - words.low
    assert width / naive == pytest.approx(math.sqrt(20), rel=0.1)


def test_units_are_summed_by_row_whatever_their_order() -> None:
    found = RowStatistics.of_units(RIGHT, np.array([7, 3, 7, 7]), [np.array([1, 0, 0, 1]), np.ones(4)])
    assert found.rows.tolist() == [3, 7]
    assert found.statistics.tolist() == [[0, 1], [2, 3]]
    assert found.value == 0.5


def test_a_model_against_itself_differs_by_exactly_nothing() -> None:
    answers = of_rows(np.random.default_rng(1).random(500) < 0.9)
    assert difference(answers, answers, resamples=1000, seed=0) == Estimate(0.0, 0.0, 0.0)


def test_a_comparison_is_paired() -> None:
    """Models that are wrong on the same rows leave no doubt; the two intervals on their own would leave plenty."""
    champion = np.arange(1000) % 2 == 0
    challenger = champion.copy()
    challenger[1:41:2] = True  # right wherever the champion is, and on 20 rows more
    one, two = of_rows(challenger), of_rows(champion)
    found = difference(one, two, resamples=10_000, seed=0)
    assert found.value == pytest.approx(0.02)
    assert found.low > 0.01
    assert estimate(one, resamples=1000, seed=0).low < estimate(two, resamples=1000, seed=0).high


def test_a_comparison_draws_rows_one_by_one_and_with_replacement() -> None:
    generator = np.random.default_rng(2)
    challenger, champion = generator.random(300) < 0.8, generator.random(300) < 0.7
    found = difference(of_rows(challenger), of_rows(champion), resamples=20_000, seed=3)
    rows = generator.integers(0, 300, size=(20_000, 300))
    naive = challenger[rows].mean(axis=1) - champion[rows].mean(axis=1)
    assert found.value == pytest.approx(challenger.mean() - champion.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.004)


def test_the_bootstrap_is_seeded() -> None:
    generator = np.random.default_rng(5)
    a, b = (of_rows(generator.random(400) < share) for share in (0.9, 0.85))
    assert difference(a, b, resamples=1000, seed=7) == difference(a, b, resamples=1000, seed=7)
    assert len({difference(a, b, resamples=1000, seed=seed).low for seed in range(10)}) > 1


def test_answers_on_other_rows_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(of_rows(np.ones(2)), of_rows(np.ones(1)), resamples=10, seed=0)


def test_less_may_be_better() -> None:
    assert RIGHT.gain(0.9, 0.8) == pytest.approx(0.1)
    assert NATS.gain(4.0, 5.0) == 1.0


def test_t_interval_by_hand() -> None:
    # mean 2.5, sample deviation sqrt(5/3), t(0.975, 3) = 3.182446
    found = t_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * (5 / 3) ** 0.5 / 2
    assert found.value == 2.5
    assert found.low == pytest.approx(2.5 - half, abs=1e-5)
    assert found.high == pytest.approx(2.5 + half, abs=1e-5)


def test_t_interval_of_equal_values_is_a_point_and_of_one_value_is_refused() -> None:
    assert t_interval([0.25] * 4) == Estimate(0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="at least 2"):
        t_interval([1.0])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(-1, 1))
def test_t_interval_is_symmetric_and_moves_with_its_values(values: list[float], shift: float) -> None:
    found, moved = t_interval(values), t_interval([value + shift for value in values])
    assert found.high - found.value == pytest.approx(found.value - found.low, abs=1e-9)
    assert moved.low == pytest.approx(found.low + shift, abs=1e-9)


def test_metrics_tell_scores_as_they_were_measured() -> None:
    measured = {NATS: Estimate(4.5, 4.0, 5.0), RIGHT: Estimate(0.5, 0.25, 0.75), AMISS: Estimate(math.nan, 0, 0)}
    metrics = json.loads(json.dumps(as_metrics(measured), sort_keys=True))
    assert {name: value for name, value in metrics.items() if not name.startswith("scores")} == {
        "nats": 4.5,
        "nats_low": 4.0,
        "nats_high": 5.0,
        "right": 0.5,
        "right_low": 0.25,
        "right_high": 0.75,
        "primary": "nats",
    }
    first, second = told_scores(metrics)
    assert (first.name, first.value, first.low, first.high, first.higher, first.share) == (
        "nats",
        4.5,
        4.0,
        5.0,
        False,
        False,
    )
    assert (second.name, second.title, second.higher, second.share) == ("right", "share of right answers", True, True)


AMISS = Score("amiss", "undefined here", ratio)

BEFORE = {
    "accuracy": 0.975, "accuracy_low": 0.96, "accuracy_high": 0.98, "ece": 0.02, "macro_f1": 0.97,
    "min_class_recall": 0.9, "n_test": 941, "lift_5": 0.05, "lift_5_low": 0.01, "lift_5_high": 0.09,
}  # fmt: skip
"""metrics.json of a release made before metrics named their scores (mnist, version 0.3)."""


def test_metrics_of_before_are_told_by_the_names_that_they_had() -> None:
    told = told_scores(BEFORE)
    assert primary_name(BEFORE) == told[0].name == "accuracy"
    assert (told[0].low, told[0].high, told[0].higher) == (0.96, 0.98, True)
    assert {one.name: one.higher for one in told[1:]} == {"ece": False, "macro_f1": True, "min_class_recall": True}


GOOD = {"value": 0.5, "interval": [0.4, 0.6], "direction": "higher", "title": "x", "share": True}
BAD: list[dict[str, object]] = [
    {"value": "high"}, {"value": math.inf}, {"value": 10**400}, {"interval": ["<b>", 1]}, {"interval": [math.nan, 1]},
    {"interval": [1]},
]  # fmt: skip


@pytest.mark.parametrize("scores", [[], {"x": 1}, {"x": None}, 7, *({"x": GOOD | bad} for bad in BAD)])
def test_metrics_that_are_none_tell_nothing(scores: object) -> None:
    assert told_scores({"primary": 3, "scores": scores}) == []


MAY_SAY_ACCURACY = {
    "src/graftline/score.py": "the name by which a release that does not say was judged",
    "src/graftline/gate.py": "the old spelling of the gate's limits, and an example",
    "src/graftline/plan/layers.py": "of a plan's estimate",
    "src/graftline/audit/evidence/annex.py": "the words of the AI Act",
}


def test_only_problems_know_what_they_are_judged_by() -> None:
    files = [*ROOT.glob("src/graftline/**/*"), *ROOT.glob("components/**/*"), *ROOT.glob("pipelines/*.py")]
    named = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.suffix in (".py", ".j2", ".js")
        and not path.is_relative_to(ROOT / "src/graftline/problems")
        and "accuracy" in path.read_text(encoding="utf-8").lower()
    }
    assert named == set(MAY_SAY_ACCURACY)


def test_rows_of_unequal_weight_prove_no_more_than_their_effective_number() -> None:
    """1,000 rows, of which 5 have nearly all the weight, prove about as much as 5."""
    rows = np.arange(1000)
    sums = np.ones((1000, 2))
    weights = np.where(rows < 5, 1000.0, 0.001)
    few, many, uneven = (
        estimate(RowStatistics(RIGHT, rows[:count], sums[:count], weights=of), resamples=20, seed=0).low
        for count, of in ((5, None), (1000, np.full(1000, 7.0)), (1000, weights))
    )
    assert uneven == pytest.approx(few, abs=0.001)
    assert many == estimate(RowStatistics(RIGHT, rows, sums), resamples=20, seed=0).low > 0.99
