"""The scores of the problems against values that are known: by hand, in closed form, and from scikit-learn.

scikit-learn is no dependency. Its values below are what version 1.9.1 said of LABELS, GUESSES and PROBABILITIES:
`f1_score(LABELS, GUESSES, average="macro")` and `roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr")`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.scores import (
    MACRO_F1,
    MIN_CLASS_RECALL,
    accuracy,
    accuracy_rows,
    auroc_rows,
    calibration_rows,
    class_rows,
    class_scores,
    confusion,
    perplexity_rows,
)
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.token_classification.parameters import TokenClassificationParams
from graftline.score import Estimate, estimate

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 0])
GUESSES = np.array([0, 0, 1, 1, 0, 2, 2, 1, 2, 2])
ROWS = np.arange(10)
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1],
        [0.1, 0.1, 0.8], [0.2, 0.3, 0.5], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4],
    ]
)  # fmt: skip


def area_by_pairs(probabilities: np.ndarray, positive: np.ndarray) -> float:
    """The definition: the share of pairs in which the positive one is ranked higher, ties counted half."""
    wins = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(probabilities[positive], probabilities[~positive])]
    return float(np.mean(wins))


def test_macro_f1_by_hand() -> None:
    # class 0: 2 of 4 right, 3 predicted: F1 4/7; class 1: 1 of 2, 3 predicted: 2/5; class 2: 3 of 4, 4 predicted: 3/4
    found = class_rows(MACRO_F1, ROWS, LABELS, GUESSES, 3)
    assert found.value == pytest.approx((4 / 7 + 2 / 5 + 3 / 4) / 3)
    assert found.value == pytest.approx(0.5738095238095239), "scikit-learn"
    assert class_rows(MIN_CLASS_RECALL, ROWS, LABELS, GUESSES, 3).value == 0.5


def test_a_class_that_does_not_occur_is_left_out_of_the_mean() -> None:
    with_a_fourth = class_rows(MACRO_F1, ROWS, LABELS, GUESSES, 4)
    assert with_a_fourth.value == class_rows(MACRO_F1, ROWS, LABELS, GUESSES, 3).value
    assert class_rows(MIN_CLASS_RECALL, ROWS, LABELS, GUESSES, 4).value == 0.5


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    found = auroc_rows(ROWS, LABELS, PROBABILITIES)
    areas = [area_by_pairs(PROBABILITIES[:, number], number == LABELS) for number in range(3)]
    assert found.value == pytest.approx(np.mean(areas))
    assert found.value == pytest.approx(0.8333333333333334), "scikit-learn"


def test_auroc_of_rows_drawn_is_that_of_the_rows_written_out() -> None:
    """The weights of a resample say the same as the rows repeated."""
    drawn = np.array([3, 3, 0, 9, 5, 5, 5, 7, 1, 4])
    weights = np.bincount(drawn, minlength=10)[None].astype(float)
    found = auroc_rows(ROWS, LABELS, PROBABILITIES).values(weights)[0]
    areas = [area_by_pairs(PROBABILITIES[drawn, n], LABELS[drawn] == n) for n in range(3)]
    assert found == pytest.approx(np.mean(areas))


def test_auroc_of_two_normals_is_the_closed_form() -> None:
    """Of scores N(0, 1) and N(d, 1) it is Phi(d / sqrt 2); and the interval holds it, with about its known width."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    scores = generator.normal(size=4000) + labels * 1.0
    shares = 1 / (1 + np.exp(-scores))
    found = estimate(
        auroc_rows(np.arange(4000), labels, np.stack([1 - shares, shares], axis=1)), resamples=10_000, seed=0
    )
    truth = 0.5 * (1 + math.erf(1 / 2))
    assert found.value == pytest.approx(truth, abs=0.015)
    assert found.low < truth < found.high
    # J. Hanley and B. McNeil, Radiology 143 (1982): the standard error of an area
    q1, q2 = truth / (2 - truth), 2 * truth**2 / (1 + truth)
    error = math.sqrt((truth * (1 - truth) + 1999 * (q1 - truth**2 + q2 - truth**2)) / 2000**2)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_auroc_of_one_class_only_is_not_defined() -> None:
    found = auroc_rows(ROWS, np.zeros(10, dtype=int), PROBABILITIES)
    assert math.isnan(found.value)
    assert math.isnan(estimate(found, resamples=200, seed=0).low)


def ece(confidence: np.ndarray, right: np.ndarray) -> float:
    return calibration_rows(np.arange(len(right)), confidence, right).value


def test_ece_by_hand() -> None:
    # 3 rows at 0.95, two right: gap 0.95 - 2/3; 1 row at 0.60, right: gap 0.4
    confidence, right = np.array([0.95, 0.95, 0.95, 0.60]), np.array([True, True, False, True])
    assert ece(confidence, right) == pytest.approx((3 * (0.95 - 2 / 3) + 1 * 0.4) / 4)


def test_ece_of_a_calibrated_classifier_is_small_and_of_an_overconfident_one_is_its_excess() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 200_000)
    assert ece(confidence, generator.random(200_000) < confidence) < 0.01
    assert ece(confidence, generator.random(200_000) < confidence - 0.2) == pytest.approx(0.2, abs=0.01)


def test_a_confidence_on_a_bins_edge_falls_below_it_and_0_and_1_are_counted() -> None:
    found = calibration_rows(np.arange(3), np.array([0.0, 1 / 15, 1.0]), np.ones(3, dtype=bool))
    assert found.statistics[:, :15].sum(axis=0).tolist() == [2, *[0] * 13, 1]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_is_between_the_overall_gap_and_1(rows: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows])
    assert abs(confidence.mean() - right.mean()) - 1e-9 <= ece(confidence, right) <= 1 + 1e-9


def test_perplexity_is_of_all_tokens_and_its_interval_of_documents() -> None:
    """Two documents of 1 and 3 tokens: e to the mean of four surprises, not the mean of two perplexities."""
    found = perplexity_rows(np.array([4, 9, 9, 9]), np.array([1.0, 2.0, 2.0, 3.0]))
    assert found.value == pytest.approx(math.exp(2))
    assert found.rows.tolist() == [4, 9]
    interval = estimate(found, resamples=2000, seed=0)
    assert (interval.low, interval.high) == pytest.approx((math.exp(1), math.exp(7 / 3)))


def test_confusion_and_class_scores_by_hand() -> None:
    labels, guesses = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    assert confusion(labels, guesses, 4).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    zero, one, two, absent = class_scores(class_rows(MACRO_F1, np.arange(6), labels, guesses, 4))
    assert (zero.support, zero.precision, zero.recall) == (3, 2 / 4, 2 / 3)
    assert zero.f1 == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert (one.support, one.precision, one.recall, one.f1) == (2, 0.5, 0.5, 0.5)
    assert (two.support, two.precision, two.recall, two.f1) == (1, 0.0, 0.0, 0.0)
    assert (absent.support, absent.precision, absent.recall, absent.f1) == (0, 0.0, None, 0.0)


def test_each_class_has_an_interval_of_its_own_rows() -> None:
    """Of class 0 there are 100 rows, 90 of them right; of 1 there are 20, all right; of 2 seven words of one row."""
    labels = np.repeat([0, 1, 2, 3], [100, 20, 7, 873])
    guesses = labels.copy()
    guesses[:10] = 3
    rows = np.where(labels == 2, 5000, np.arange(1000))
    wrong, right, one_row, _, absent = class_scores(class_rows(MACRO_F1, rows, labels, guesses, 5))
    assert wrong.recall_interval == pytest.approx(binom.ppf([0.025, 0.975], 100, 0.9) / 100, abs=0.015)
    assert right.recall_interval == pytest.approx((0.025 ** (1 / 20), 1))
    assert one_row.recall_interval == pytest.approx((0.025, 1)), "words of one sentence are right or wrong together"
    assert absent.recall_interval is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=80))
def test_class_counts_of_rows_add_up_to_the_confusion(pairs: list[tuple[int, int]]) -> None:
    labels, guesses = (np.array(column) for column in zip(*pairs, strict=True))
    rows = np.arange(len(labels)) // 3  # three units a row
    total = class_rows(MACRO_F1, rows, labels, guesses, 4).statistics.sum(axis=0).reshape(3, 4)
    matrix = confusion(labels, guesses, 4)
    assert total.tolist() == [np.diag(matrix).tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()]


def test_the_primary_score_of_each_problem() -> None:
    primary = {
        params.model_fields["name"].default: params.scores[0].name
        for params in (
            ImageClassificationParams,
            SequenceClassificationParams,
            TokenClassificationParams,
            TextGenerationParams,
        )
    }
    assert primary == {
        "image_classification": "accuracy",
        "sequence_classification": "accuracy",
        "token_classification": "accuracy",
        "text_generation": "perplexity",
    }


def test_a_words_accuracy_is_drawn_by_sentences() -> None:
    score = accuracy("accuracy a word")
    found = accuracy_rows(score, np.array([5, 5, 5, 8]), np.array([True, True, True, False]))
    assert found.statistics.tolist() == [[3, 3], [0, 1]]
    assert estimate(found, resamples=500, seed=0) == Estimate(0.75, 0.0, 1.0)
