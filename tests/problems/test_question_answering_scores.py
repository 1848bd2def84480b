"""Exact match and F1 against SQuAD's own rules, written down a second time as its paper and its script state them."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest

from graftline.problems.question_answering.answers import Found, QuestionAnswers, best_threshold
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.question_answering.scores import ANSWERED_F1, EXACT_MATCH, F1, NO_ANSWER, exact_match, f1
from graftline.values.span import Answer


def official(prediction: str, gold: list[str]) -> tuple[float, float]:
    """The rules of evaluate-v2.0.py, step by step: normalise, compare with each answer of which something stays."""

    def normalise(text: str) -> list[str]:
        kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split()).split()

    answers = [answer for answer in gold if normalise(answer)] or [""]
    exact, best = 0.0, 0.0
    for answer in answers:
        told, true = normalise(prediction), normalise(answer)
        exact = max(exact, float(told == true))
        if not told or not true:
            best = max(best, float(told == true))
            continue
        left, same = list(true), 0
        for word in told:
            if word in left:
                left.remove(word)
                same += 1
        if same:
            precision, recall = same / len(told), same / len(true)
            best = max(best, 2 * precision * recall / (precision + recall))
    return exact, best


CASES = [
    ("the Norman conquest", ["Norman Conquest"], 1.0, 1.0),
    ("Denver Broncos", ["The Denver Broncos!", "Broncos"], 1.0, 1.0),
    ("Broncos", ["Denver Broncos"], 0.0, 2 / 3),
    ("in 1066 and all that", ["1066"], 0.0, 1 / 3),
    ("1066", ["1067"], 0.0, 0.0),
    ("new york new york", ["new york"], 0.0, 2 / 3),
    ("a b b", ["b b c"], 0.0, 0.8),
    ("", [], 1.0, 1.0),
    ("", ["something"], 0.0, 0.0),
    ("something", [], 0.0, 0.0),
    ("the", [], 1.0, 1.0),
    ("the", ["an"], 1.0, 1.0),
    ("X", ["the", "x"], 1.0, 1.0),
    ("U.S.A.", ["usa"], 1.0, 1.0),
    ("gun-dog", ["gundog"], 1.0, 1.0),
    ("\u00dcber  alles", ["\u00fcber alles"], 1.0, 1.0),
]


@pytest.mark.parametrize(("given", "right", "exact", "share"), CASES)
def test_an_answer_counts_by_its_words(given: str, right: list[str], exact: float, share: float) -> None:
    assert (exact_match(given, right), f1(given, right)) == (exact, pytest.approx(share))
    assert official(given, right) == (exact, pytest.approx(share)), "the rules themselves"


def test_any_words_are_judged_as_the_rules_say() -> None:
    draw = np.random.default_rng(0)
    parts = np.array(["the", "a", "dog", "Dog", "cat,", "...", "1999", "an ant", "the-end", ""])
    for _ in range(500):
        given = " ".join(draw.choice(parts, draw.integers(0, 4)))
        right = [" ".join(draw.choice(parts, draw.integers(1, 4))) for _ in range(draw.integers(0, 3))]
        assert (exact_match(given, right), f1(given, right)) == pytest.approx(official(given, right)), (given, right)


def answers(margins: list[float], texts: list[str], right: list[list[str]], threshold: float = 0.0) -> QuestionAnswers:
    found = [Found(Answer(text, 0), margin, 0.5) for text, margin in zip(texts, margins, strict=True)]
    scores = QuestionAnsweringParams.scores
    return QuestionAnswers(scores, np.arange(len(found)), 1.0, found, right, threshold)


def test_each_row_adds_its_own_worth() -> None:
    made = answers([1, 1, -1, 2], ["dog", "a red dog", "cat", "cat"], [["dog"], ["dog"], [], []])
    assert made.given == ["dog", "a red dog", "", "cat"]
    assert made.measured(F1).value == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert made.measured(EXACT_MATCH).value == (1 + 0 + 1 + 0) / 4
    assert made.measured(ANSWERED_F1).value == pytest.approx((1 + 2 / 3) / 2)
    assert made.measured(NO_ANSWER).value == pytest.approx((1 + 1 + 0 + 0) / 4), "of four pairs two are ranked right"


def test_without_questions_that_have_no_answer_nothing_tells_them_apart() -> None:
    assert np.isnan(answers([1, 2], ["dog", "cat"], [["dog"], ["cat"]]).measured(NO_ANSWER).value)


def test_the_threshold_is_the_one_that_is_worth_most() -> None:
    draw = np.random.default_rng(1)
    for _ in range(50):
        margins = draw.standard_normal(12).tolist()
        right = [[] if draw.random() < 0.4 else [str(draw.choice(["dog", "cat"]))] for _ in margins]
        best = best_threshold(answers(margins, ["dog"] * 12, right))
        worth = {at: answers(margins, ["dog"] * 12, right, at).value for at in [-9.0, 0.0, 9.0, best, *margins]}
        assert worth[best] == pytest.approx(max(worth.values())), (margins, right)
