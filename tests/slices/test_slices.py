"""Slices and groups against figures computed by hand: intervals, corrections, what is found, what is too small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom

from graftline.errors import InputError
from graftline.gate import Gate, decide
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.scores import MACRO_F1, accuracy, accuracy_rows, class_rows
from graftline.score import RowStatistics
from graftline.slices.conditions import parse_slice
from graftline.slices.finding import errors, find
from graftline.slices.measuring import OPPORTUNITY, PARITY, gaps, judge
from graftline.tasks.evaluate import EvaluateParams

CELLS: dict[str, list[Any]] = {
    "language": ["tr", "en", "tr", None],
    "age": [30, 41, 41.0, 7],
    "text": ["a b c", "a", "a b", "a b c d"],
    "tags": [["x"], ["x", "y"], [], ["x"]],
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("language=tr", [0, 2]),
        ("language!=tr", [1]),
        ("language~[!e]?", [0, 2]),
        ("age=41", [1, 2]),
        ("age < 41", [0, 3]),
        ("length(text)>2", [0, 3]),
        ("length( tags )>=1 & language=en", [1]),
    ],
)
def test_a_slice_is_the_rows_in_which_its_conditions_hold(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(parse_slice(text).rows(CELLS, "here")).tolist() == rows


@pytest.mark.parametrize("text", ["language", "=tr", "age>old", "a=1 &", "length(text)=long", ""])
def test_what_is_no_slice_is_refused_with_the_parameters(text: str) -> None:
    with pytest.raises(ValidationError, match=r"no slice|expected a number"):
        EvaluateParams(slices={"expressions": [text]})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"no slice|expected a number"):
        Gate(slices={text: {"accuracy": 0.5}})


@pytest.mark.parametrize(("text", "said"), [("languag=tr", "did you mean 'language'"), ("language>3", "has no order"),
                                            ("length(age)>3", "has no length")])  # fmt: skip
def test_a_slice_that_the_data_does_not_have_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_slice(text).rows(CELLS, "here")


def right(count: int, of: int) -> np.ndarray:
    return np.arange(of) < count


def measured(*parts: np.ndarray) -> RowStatistics:
    whole = np.concatenate(parts)
    return accuracy_rows(accuracy(), np.arange(len(whole)), whole)


def members(*sizes: int) -> np.ndarray:
    """Return (n, s): slices that lie one behind the other."""
    return np.repeat(np.eye(len(sizes), dtype=bool), sizes, axis=0)


def test_intervals_are_those_of_the_shares_corrected_for_all_slices_that_are_judged() -> None:
    all_ = measured(right(100, 200), right(270, 300), right(500, 500), right(5, 10))
    names = [("half", "asked"), ("most", "asked"), ("all", "asked"), ("few", "asked")]
    half, most, whole, few = judge(all_, names, members(200, 300, 500, 10), 30, resamples=20_000, seed=0)
    tail = 0.05 / 6 / 2  # three are large enough, and are looked at twice
    for one, share, size in ((half, 0.5, 200), (most, 0.9, 300)):
        assert one.value is not None and one.value.value == pytest.approx(share)
        ends = binom.ppf([tail, 1 - tail], size, share) / size
        assert (one.value.low, one.value.high) == pytest.approx(ends, abs=0.01)
    assert whole.value is not None
    assert (whole.value.low, whole.value.high) == (pytest.approx(tail ** (1 / 500)), 1.0)
    assert few.value is None and few.verdict == "too small to judge: fewer than 30 rows"
    assert half.difference is not None
    assert half.difference.value == pytest.approx(0.5 - (270 + 500 + 5) / 810)
    assert (half.verdict, whole.verdict) == ("worse than the other rows", "better than the other rows")


def test_a_small_slice_that_is_all_right_is_no_better_for_that() -> None:
    """Of 30 rows all are right in 4 of 10 draws where 97 of 100 are: no resample of them says so."""
    all_ = measured(right(30, 30), right(2910, 3000))
    names = [("small", "asked"), ("rest", "asked")]
    small, _ = judge(all_, names, members(30, 3000), 30, resamples=2000, seed=0)
    assert small.verdict == "no difference is sure"
    assert small.difference is not None and small.difference.low < 0 < small.difference.high


def test_a_group_whose_rate_is_one_is_no_sure_gap() -> None:
    labels = np.ones(230, int)
    predicted = np.concatenate([right(30, 30), right(190, 200)]).astype(int)
    inside = np.repeat(np.eye(2, dtype=bool), [30, 200], axis=0)
    counts = class_rows(MACRO_F1, np.arange(230), labels, predicted, 2)
    found = gaps("g", ["a", "b"], inside, counts, ["no", "yes"], 30, resamples=2000, seed=0)
    assert found and not any(one.sure for one in found)


def test_looking_at_many_slices_of_noise_finds_no_difference() -> None:
    draw = np.random.default_rng(6)
    noise, groups = draw.random(1200) < 0.7, np.eye(20, dtype=bool)[draw.integers(0, 20, 1200)]
    names = [(f"group={n}", "column group") for n in range(20)]
    judged = judge(measured(noise), names, groups, 30, resamples=2000, seed=0)
    assert {one.verdict for one in judged} == {"no difference is sure"}
    alone = [
        judge(measured(noise), [name], groups[:, [n]], 30, resamples=500, seed=0)[0] for n, name in enumerate(names)
    ]
    assert any(one.worse is not None for one in alone), "one at a time some would have been blamed"


def test_a_row_that_counts_more_counts_more() -> None:
    all_ = measured(right(1, 40), right(40, 40))
    heavy = RowStatistics(all_.score, all_.rows, all_.statistics, weights=np.r_[39.0, np.ones(79)])
    (one,) = judge(heavy, [("a", "asked")], members(40, 40)[:, :1], 30, resamples=1000, seed=0)
    assert one.value is not None and one.value.value == pytest.approx(0.5)


def test_differences_between_groups_are_those_of_hardt_and_of_parity() -> None:
    """100 rows of `yes` and 100 of `no` in each group; a: 80 and 10 are told to be yes, b: 50 and 40."""
    labels, predicted, group = [], [], []
    for name, of_yes, of_no in (("a", 80, 10), ("b", 50, 40)):
        labels += [1] * 100 + [0] * 100
        predicted += right(of_yes, 100).astype(int).tolist() + right(of_no, 100).astype(int).tolist()
        group += [name] * 200
    counts = class_rows(MACRO_F1, np.arange(400), np.array(labels), np.array(predicted), 2)
    inside = np.array(group)[:, None] == np.array(["a", "b"])
    found = {one.kind: one for one in gaps("g", ["a", "b"], inside, counts, ["no", "yes"], 30, resamples=4000, seed=0)}
    opportunity = found[OPPORTUNITY]
    assert (opportunity.most, opportunity.least) == ("a", "b")
    assert opportunity.difference.value == pytest.approx(0.3)
    assert opportunity.groups == {"a": pytest.approx(0.8 if opportunity.label == "yes" else 0.9),
                                  "b": pytest.approx(0.5 if opportunity.label == "yes" else 0.6)}  # fmt: skip
    # two classes, one pair: 97.5% intervals; normal approximation of the difference of two shares
    shares = [opportunity.groups["a"], opportunity.groups["b"]]
    half = 2.2414 * np.sqrt(sum(share * (1 - share) / 100 for share in shares))
    assert opportunity.difference.low == pytest.approx(0.3 - half, abs=0.02)
    assert opportunity.difference.high == pytest.approx(0.3 + half, abs=0.02)
    assert opportunity.sure
    parity = found[PARITY]
    assert parity.difference.value == pytest.approx(0.0) and not parity.sure  # 90 of 200 in both


def test_a_slice_of_two_conditions_that_errs_is_found_before_its_parts() -> None:
    draw = np.random.default_rng(0)
    maker, size = draw.choice(["a", "b", "c"], 3000), draw.choice(["small", "large"], 3000)
    bad = (maker == "b") & (size == "large")
    error = measured(draw.random(3000) > np.where(bad, 0.8, 0.1))
    of_row = errors(error)
    assert of_row is not None and set(of_row) == {0.0, 1.0}
    texts = [("a " * int(n)).strip() for n in draw.integers(1, 30, 3000)]
    first, *_ = find({"maker": maker.tolist(), "size": size.tolist()}, {"text": texts}, of_row, 3, 30)
    assert set(first.name.split(" & ")) == {"maker=b", "size=large"}
    assert find({"maker": maker.tolist()}, {}, of_row, 3, 2500) == [], "none is as large as that"
    (long,) = find({}, {"text": texts}, np.array([len(text) > 40 for text in texts], dtype=float), 1, 30)
    assert long.name.startswith("length(text)>")


def test_what_is_found_is_what_sliceline_finds() -> None:
    """The slices of sliceline 0.3.0, by record_sliceline.py, in its order."""
    recorded = json.loads(Path(__file__).with_name("sliceline-0.3.0.json").read_text())
    wrong = np.array(recorded["wrong"], dtype=float)
    found = find(recorded["cells"], {}, wrong, recorded["count"], recorded["least"])
    assert [one.name for one in found] == recorded["slices"] and len(found) > 4


def test_the_gate_holds_on_each_slice_and_fails_where_nothing_was_judged() -> None:
    gate = Gate(slices={"language=tr": {"accuracy": 0.8}, "language=fi": {"accuracy": 0.1}}, max_champion_loss=None)
    gate.check_names((accuracy(),), "params.yaml")
    decision = decide(gate, {"slices.language=tr.accuracy": 0.79}, None)
    small, missed = decision.rules
    assert (missed.name, missed.value, missed.passed) == ("slices.language=tr.accuracy", 0.79, False)
    assert small.value is None and not small.passed and "fewer rows than slices.least_rows" in small.note
    assert decide(Gate(slices={"language=tr": {"accuracy": 0.7}}), {"slices.language=tr.accuracy": 0.79}, None).passed
    with pytest.raises(InputError, match=r"gate\.slices\.language=tr\.acuracy"):
        Gate(slices={"language=tr": {"acuracy": 0.7}}).check_names((accuracy(),), "params.yaml")


def test_the_gate_may_limit_differences_between_groups_and_how_many_slices_are_worse() -> None:
    ceilings = {"slices_worse": 0, "slices.group.equal_opportunity": 0.2, "slices.group.demographic_parity_low": 0.1}
    params = EvaluateParams(slices={"columns": ["group"]}, gate={"ceilings": ceilings})  # type: ignore[arg-type]
    head = ImageClassificationParams()
    params.check_head(head, "params.yaml")
    measured = {"slices_worse": 0, "slices.group.equal_opportunity": 0.3, "slices.group.demographic_parity_low": 0.1}
    passed = {rule.name: rule.passed for rule in decide(params.gate, measured, None).rules}
    assert [passed[f"ceilings.{name}"] for name in ceilings] == [True, False, True]
    assert not decide(params.gate, {}, None).passed, "what was not judged cannot be vouched for"
    with pytest.raises(InputError, match=r"slices\.grup\.equal_opportunity: .* did you mean 'slices.group"):
        EvaluateParams(
            slices={"columns": ["group"]},
            gate={"ceilings": {"slices.grup.equal_opportunity": 0.2}},  # type: ignore[arg-type]
        ).check_head(head, "params.yaml")


@pytest.mark.parametrize("kind", ["plain", "weighted"])
def test_scores_and_differences_are_those_of_fairlearn(kind: str) -> None:
    """Figures of fairlearn 0.15.0, by record_fairlearn.py: its MetricFrame, and its two differences of each class."""
    recorded = json.loads(Path(__file__).with_name("fairlearn-0.15.0.json").read_text())
    rows, theirs = recorded["rows"], recorded[kind]
    group, label, predicted = (np.array(rows[name]) for name in ("group", "label", "predicted"))
    weights = np.array(rows["weight"]) if kind == "weighted" else None
    names, classes = ["x", "y", "z"], ["ant", "bee", "cow"]
    inside = group[:, None] == np.arange(3)

    right = replace(accuracy_rows(accuracy(), np.arange(900), label == predicted), weights=weights)
    judged = judge(right, [(name, "column") for name in names], inside, 5, resamples=1000, seed=0)
    values = {one.name: one.value.value for one in judged if one.value is not None}
    assert values == pytest.approx(theirs["accuracy"], rel=0, abs=1e-12)

    counts = replace(class_rows(MACRO_F1, np.arange(900), label, predicted, 3), weights=weights)
    found = {one.kind: one for one in gaps("g", names, inside, counts, classes, 5, resamples=1000, seed=0)}
    for what, rate in ((OPPORTUNITY, "true_positive_rate"), (PARITY, "selection_rate")):
        largest = max(theirs["classes"], key=lambda name: theirs["classes"][name][what])
        expected = theirs["classes"][largest]
        assert found[what].label == largest
        assert found[what].difference.value == pytest.approx(expected[what], rel=0, abs=1e-12)
        assert found[what].groups == pytest.approx(expected[rate], rel=0, abs=1e-12)
