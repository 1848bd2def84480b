"""The statistics against values worked out by hand or published, and against their laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftline.evaluation.statistics import (
    calibrate,
    class_scores,
    confusion,
    paired_bootstrap,
    t_interval,
    wilson,
)


def verdicts(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


def test_wilson_matches_published_intervals() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        estimate = wilson(successes, trials)
        assert estimate.low == pytest.approx(low, abs=5e-5)
        assert estimate.high == pytest.approx(high, abs=5e-5)
        assert estimate.value == successes / trials


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_stays_within_0_and_1_and_mirrors(case: tuple[int, int]) -> None:
    successes, trials = case
    estimate, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_wilson_refuses_impossible_counts() -> None:
    for successes, trials in [(0, 0), (3, 2), (-1, 5)]:
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, trials)


def test_t_interval_by_hand() -> None:
    # mean 2.5, sample deviation sqrt(5/3), t(0.975, 3) = 3.182446
    estimate = t_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * (5 / 3) ** 0.5 / 2
    assert estimate.value == 2.5
    assert estimate.low == pytest.approx(2.5 - half, abs=1e-5)
    assert estimate.high == pytest.approx(2.5 + half, abs=1e-5)


def test_t_interval_of_equal_values_is_a_point_and_of_one_value_is_refused() -> None:
    estimate = t_interval([0.25] * 4)
    assert (estimate.low, estimate.value, estimate.high) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="at least 2"):
        t_interval([1.0])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(-1, 1))
def test_t_interval_is_symmetric_and_moves_with_its_values(values: list[float], shift: float) -> None:
    estimate, moved = t_interval(values), t_interval([value + shift for value in values])
    assert estimate.high - estimate.value == pytest.approx(estimate.value - estimate.low, abs=1e-9)
    assert moved.low == pytest.approx(estimate.low + shift, abs=1e-9)


def test_bootstrap_of_one_model_against_itself_is_exactly_zero() -> None:
    right = np.random.default_rng(1).random(500) < 0.9
    estimate = paired_bootstrap(right, right.copy(), resamples=1000, seed=0)
    assert (estimate.low, estimate.value, estimate.high) == (0.0, 0.0, 0.0)


def test_bootstrap_equals_resampling_rows_one_by_one() -> None:
    generator = np.random.default_rng(2)
    challenger, champion = generator.random(300) < 0.8, generator.random(300) < 0.7
    estimate = paired_bootstrap(challenger, champion, resamples=20_000, seed=3)
    rows = generator.integers(0, 300, size=(20_000, 300))
    naive = challenger[rows].mean(axis=1) - champion[rows].mean(axis=1)
    assert estimate.value == pytest.approx(challenger.mean() - champion.mean())
    assert estimate.low == pytest.approx(np.quantile(naive, 0.025), abs=0.004)
    assert estimate.high == pytest.approx(np.quantile(naive, 0.975), abs=0.004)


def test_bootstrap_is_paired() -> None:
    """Models that are wrong on the same rows leave no doubt; unpaired resampling would see plenty."""
    champion = np.arange(1000) % 2 == 0
    challenger = champion.copy()
    challenger[1:41:2] = True  # right wherever the champion is, and on 20 rows more
    estimate = paired_bootstrap(challenger, champion, resamples=10_000, seed=0)
    assert estimate.value == 0.02
    assert estimate.low > 0.01


def test_bootstrap_is_seeded_and_changes_sign_with_its_arguments() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.random(400) < 0.9, generator.random(400) < 0.85
    assert paired_bootstrap(a, b, resamples=1000, seed=7) == paired_bootstrap(a, b, resamples=1000, seed=7)
    assert len({paired_bootstrap(a, b, resamples=1000, seed=seed) for seed in range(10)}) > 1
    forward, backward = (paired_bootstrap(*pair, resamples=20_000, seed=0) for pair in ((a, b), (b, a)))
    assert forward.value == -backward.value
    assert forward.high == pytest.approx(-backward.low, abs=0.006)


def test_bootstrap_refuses_verdicts_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_bootstrap(verdicts(1, 0), verdicts(1), resamples=10, seed=0)


def test_ece_by_hand() -> None:
    # 3 rows at 0.95, two right: gap 0.95 - 2/3; 1 row at 0.60, right: gap 0.4
    calibration = calibrate(np.array([0.95, 0.95, 0.95, 0.60]), verdicts(1, 1, 0, 1))
    assert calibration.error == pytest.approx((3 * (0.95 - 2 / 3) + 1 * 0.4) / 4)
    assert calibration.counts.sum() == 4
    assert calibration.counts[-1] == 3


def test_ece_of_a_calibrated_classifier_is_small_and_of_an_overconfident_one_is_its_excess() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 200_000)
    calibrated = calibrate(confidence, generator.random(200_000) < confidence)
    assert calibrated.error < 0.01
    overconfident = calibrate(confidence, generator.random(200_000) < confidence - 0.2)
    assert overconfident.error == pytest.approx(0.2, abs=0.01)


def test_a_confidence_on_a_bins_edge_falls_below_it_and_0_and_1_are_counted() -> None:
    calibration = calibrate(np.array([0.0, 0.5, 1.0]), verdicts(1, 1, 1), bins=2)
    assert calibration.counts.tolist() == [2, 1]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_is_between_the_overall_gap_and_1(rows: list[tuple[float, bool]]) -> None:
    confidence, correct = np.array([c for c, _ in rows]), np.array([r for _, r in rows])
    calibration = calibrate(confidence, correct)
    assert calibration.counts.sum() == len(rows)
    assert abs(confidence.mean() - correct.mean()) - 1e-9 <= calibration.error <= 1


def test_confusion_and_class_scores_by_hand() -> None:
    matrix = confusion(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0]), 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    zero, one, two, absent = class_scores(matrix)
    assert (zero.support, zero.precision, zero.recall) == (3, 2 / 4, 2 / 3)
    assert zero.f1 == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert (one.support, one.precision, one.recall, one.f1) == (2, 0.5, 0.5, 0.5)
    assert (two.support, two.precision, two.recall, two.f1) == (1, 0.0, 0.0, 0.0)
    assert (absent.support, absent.precision, absent.recall, absent.f1) == (0, 0.0, None, 0.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=80))
def test_confusion_counts_every_row_once(rows: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    matrix = confusion(labels, predicted, 4)
    for actual, guess in itertools.product(range(4), repeat=2):
        assert matrix[actual, guess] == rows.count((actual, guess))
