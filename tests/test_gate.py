"""Every rule of the gate decides, by a hair either way, and the decision names the rule and the margin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftline.environment import ROOT
from graftline.errors import InputError, RefusalError
from graftline.gate import DECISION, Comparison, Decision, Gate, Rule, decide, read_decision
from graftline.problems.regression_parameters import RegressionParams
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.score import Estimate, Score
from graftline.tasks.documents import check_parameters
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.parameters import load_document, parse

HAIR = 1e-9
METRICS = {
    "accuracy": 0.97,
    "ece": 0.02,
    "min_class_recall": 0.9,
    "perplexity": 80.0,
    "lift_5": 0.04,
    "lift_all": 0.001,
}
OFF = Gate(max_champion_loss=None)


ACCURACY, PERPLEXITY = SequenceClassificationParams.scores[0], TextGenerationParams.scores[0]


def champion(high: float) -> Comparison:
    return Comparison(ACCURACY, 3, "ab" * 32, Estimate(high - 0.01, high - 0.02, high), 0.96)


def decided(gate: Gate, metrics: dict[str, float], comparison: Comparison | None) -> dict[str, Any]:
    """Return what decision.json holds."""
    return decide(gate, metrics, comparison).as_dict()


def only(rules: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(rules) == 1
    return rules[0]


@pytest.mark.parametrize(
    ("field", "at_limit", "worse"),
    [
        ("floors", {"accuracy": 0.97}, {"accuracy": 0.97 + HAIR}),
        ("ceilings", {"ece": 0.02}, {"ece": 0.02 - HAIR}),
        ("floors", {"min_class_recall": 0.9}, {"min_class_recall": 0.9 + HAIR}),
        ("ceilings", {"perplexity": 80.0}, {"perplexity": 80.0 - HAIR}),
        ("min_lift", {"5": 0.04}, {"5": 0.04 + HAIR}),
        ("min_lift", {"all": 0.001}, {"all": 0.001 + HAIR}),
    ],
)
def test_each_floor_and_ceiling_decides_by_a_hair(field: str, at_limit: Any, worse: Any) -> None:
    met = decided(OFF.model_copy(update={field: at_limit}), METRICS, None)
    assert met["passed"]
    assert only(met["rules"])["margin"] == 0
    missed = decided(OFF.model_copy(update={field: worse}), METRICS, None)
    assert not missed["passed"]
    rule = only(missed["rules"])
    assert not rule["passed"]
    assert rule["margin"] == pytest.approx(-HAIR, rel=1e-3)
    assert missed["reason"].startswith(f"failed: {rule['name']}: ")


@pytest.mark.parametrize("allowed", [0.0, 0.01])
def test_a_significant_loss_against_the_champion_is_refused_by_a_hair(allowed: float) -> None:
    gate = Gate(max_champion_loss=allowed)
    assert decided(gate, METRICS, champion(-allowed))["passed"]
    refused = decided(gate, METRICS, champion(-allowed - HAIR))
    assert not refused["passed"]
    assert "max_champion_loss" in refused["reason"]
    assert refused["champion"] == {"version": 3, "digest": "ab" * 32}


def test_a_loss_that_may_be_chance_passes() -> None:
    comparison = Comparison(ACCURACY, 1, "cd" * 32, Estimate(-0.01, -0.03, 0.01), 0.98)
    assert decided(Gate(max_champion_loss=0.0), METRICS, comparison)["passed"]


def test_rules_that_are_null_are_neither_checked_nor_listed() -> None:
    decision = decided(OFF, {**METRICS, "accuracy": 0.0}, champion(-0.5))
    assert decision["passed"]
    assert decision["rules"] == []
    assert "no rule" in decision["reason"]
    assert decision["champion"] == {"version": 3, "digest": "ab" * 32}


def test_the_rules_of_the_lift_are_in_the_order_of_their_labels() -> None:
    """Not in that of the parameters' keys, which a file and a record have in different orders."""
    metrics = {**METRICS, "lift_5": 0.1, "lift_10": 0.1, "lift_all": 0.1}
    for keys in (("5", "10", "all"), ("all", "10", "5")):
        decision = decided(Gate(min_lift=dict.fromkeys(keys, 0.05)), metrics, None)
        assert [rule["name"] for rule in decision["rules"]] == ["min_lift.5", "min_lift.10", "min_lift.all"]


def test_without_a_champion_the_decision_says_so() -> None:
    decision = decided(Gate(floors={"accuracy": 0.9}), METRICS, None)
    assert decision["passed"]
    assert decision["champion"] is None
    assert decision["reason"].endswith("no champion to compare with")
    assert [rule["name"] for rule in decision["rules"]] == ["floors.accuracy"]


def test_a_pass_names_the_tightest_rule_and_its_margin() -> None:
    gate = Gate(floors={"accuracy": 0.95, "min_class_recall": 0.8}, ceilings={"ece": 0.03})
    decision = decided(gate, METRICS, champion(0.05))
    assert decision["reason"] == "passed: ceilings.ece: 0.0200 met <= 0.0300 by 0.0100"


def test_a_failure_names_the_worst_rule_and_the_others_that_failed() -> None:
    gate = Gate(floors={"accuracy": 0.98, "min_class_recall": 0.95}, ceilings={"ece": 0.5})
    decision = decided(gate, METRICS, champion(0.05))
    assert decision["reason"] == (
        "failed: floors.min_class_recall: 0.9000 missed >= 0.9500 by 0.0500 (also failed: floors.accuracy)"
    )


def test_a_champion_that_cannot_be_compared_is_refused_with_the_way_out() -> None:
    comparison = Comparison(ACCURACY, 2, "ef" * 32, None, obstacle="mnist@2 has 9 classes, this data set has 10")
    decision = decided(Gate(max_champion_loss=0.0), METRICS, comparison)
    assert not decision["passed"]
    assert only(decision["rules"])["value"] is None
    assert "9 classes" in decision["reason"]
    assert "max_champion_loss to null" in decision["reason"]


def test_every_rule_says_value_limit_comparison_and_margin() -> None:
    rule = only(decided(OFF.model_copy(update={"ceilings": {"ece": 0.05}}), METRICS, None)["rules"])
    assert rule == {
        "name": "ceilings.ece",
        "passed": True,
        "value": 0.02,
        "limit": 0.05,
        "comparison": "<=",
        "margin": 0.05 - 0.02,
    }


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"gate": {"flors": {"accuracy": 0.9}}}, "did you mean 'floors'"),
        ({"gate": {"min_accuracy": 0.9, "floors": {"accuracy": 0.8}}}, "keep floors.accuracy"),
        ({"gate": {"min_lift": {"7": 0.0}}}, "not in lift_labels"),
        ({"lift_labels": [5, 5]}, "stands twice"),
        ({"lift_labels": []}, "at least 1"),
        ({"lift_labels": [0]}, "greater than or equal to 1"),
        ({"lift_seeds": 1}, "greater than or equal to 2"),
        ({"lift_epochs": 10.5}, "integer"),
    ],
)
def test_wrong_parameters_are_refused(values: dict[str, Any], place: str) -> None:
    with pytest.raises(InputError, match=place):
        parse(values, EvaluateParams, where="params.yaml: evaluate")


def test_label_counts_survive_kubeflows_floats() -> None:
    params = parse({"lift_labels": [5.0, None], "lift_seeds": 4.0}, EvaluateParams, where="x")
    assert params.lift_labels == (5, None)


SCORES, WRITING = SequenceClassificationParams.scores, TextGenerationParams.scores


@pytest.mark.parametrize(
    ("gate", "scores", "said"),
    [
        ({"floors": {"macro_f": 0.8}}, SCORES, r"gate.floors.macro_f: .*did you mean 'macro_f1'.*accuracy, macro_f1"),
        ({"ceilings": {"perplexity": 80}}, SCORES, r"gate.ceilings.perplexity: this problem has no such score"),
        ({"min_class_recall": 0.5}, WRITING, r"gate.floors.min_class_recall: .*expected one of perplexity"),
        ({"floors": {"accuracy": 97}}, SCORES, r"gate.floors.accuracy: 97; expected 0 to 1"),
        ({"ceilings": {"perplexity": 0.5}}, WRITING, r"expected at least 1"),
        ({"min_lift": {"5": 5}}, SCORES, r"gate.min_lift.5: 5; expected a fraction"),
        ({"max_champion_loss": 2}, SCORES, r"gate.max_champion_loss: 2; expected a fraction"),
    ],
)
def test_what_the_problem_does_not_measure_is_refused_with_the_nearest_score(
    gate: dict[str, Any], scores: tuple[Score, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Gate.model_validate(gate).check_names(scores, "params.yaml")


def test_a_tasks_parameters_are_checked_before_anything_runs() -> None:
    """By `graftline run`, `plan`, `submit` and `compile`."""
    path = ROOT / "data/mnist/params.yaml"
    document, where = load_document(path)
    check_parameters(document, where, "mnist")
    document["evaluate"]["gate"] = {"floors": {"acuracy": 0.9}}
    with pytest.raises(InputError, match=r"params.yaml: evaluate.gate.floors.acuracy: .*did you mean 'accuracy'"):
        check_parameters(document, where, "mnist")


def test_every_score_of_a_problem_can_be_a_floor_and_a_ceiling() -> None:
    for scores in (SCORES, WRITING):
        limits = {score.name: max(score.lowest, 1.0) for score in scores}
        Gate(floors=limits, ceilings=limits, min_lift={"5": 0.5}).check_names(scores, "params.yaml")


def test_changes_of_a_score_that_is_no_share_are_of_any_size() -> None:
    Gate(min_lift={"all": 12.0}, max_champion_loss=3.0).check_names(WRITING, "params.yaml")


def test_changes_of_a_score_without_a_lower_end_are_of_any_size() -> None:
    Gate(min_lift={"all": 1.5}, max_champion_loss=2.0).check_names(RegressionParams.scores, "params.yaml")


def test_a_limit_that_is_null_may_name_any_score() -> None:
    gate = Gate.model_validate({"min_class_recall": None, "floors": {"perplexity": None}})
    gate.check_names(WRITING, "params.yaml")
    assert decided(gate, METRICS, None)["rules"] == []


@pytest.mark.parametrize("floors", [[1], 0, "accuracy"])
def test_limits_that_are_no_mapping_are_refused_beside_the_old_spelling_too(floors: object) -> None:
    with pytest.raises(InputError, match=r"evaluate.gate.floors: .*valid dictionary"):
        parse({"gate": {"min_accuracy": 0.9, "floors": floors}}, EvaluateParams, where="params.yaml: evaluate")


def test_a_rule_with_a_limit_and_no_value_does_not_hold_whatever_it_states() -> None:
    rule = Rule("floors.accuracy", True, None, 0.9, ">=")
    with pytest.raises(RefusalError, match=r"floors.accuracy \(no value\)"):
        Decision(True, "passed", (rule,), None).check("digits")


def test_the_old_spelling_of_limits_is_read() -> None:
    """As tasks spelled them when the gate knew four scores by name."""
    old = {"min_accuracy": 0.97, "max_ece": 0.1, "min_class_recall": None, "max_perplexity": 80, "min_lift": {"5": 0}}
    gate = parse({"gate": old}, EvaluateParams, where="params.yaml: evaluate").gate
    assert gate.floors == {"accuracy": 0.97, "min_class_recall": None}
    assert gate.ceilings == {"ece": 0.1, "perplexity": 80}
    assert [rule["name"] for rule in decided(gate, METRICS, None)["rules"]] == [
        "floors.accuracy",
        "ceilings.ece",
        "ceilings.perplexity",
        "min_lift.5",
    ]


@pytest.mark.parametrize(("low", "high", "passed"), [(1.0, 3.0, False), (-1.0, 3.0, True), (-3.0, -1.0, True)])
def test_a_perplexity_that_is_surely_higher_than_the_champions_is_a_loss(low: float, high: float, passed: bool) -> None:
    comparison = Comparison(PERPLEXITY, 1, "cd" * 32, Estimate((low + high) / 2, low, high), 50.0)
    assert decided(Gate(), METRICS, comparison)["passed"] is passed
    assert comparison.metrics()["champion_perplexity"] == 50.0
    allowed = decided(Gate(max_champion_loss=1.0), METRICS, comparison)
    assert allowed["passed"]


def test_a_score_that_the_rows_do_not_define_fails_its_rule_and_says_so() -> None:
    decision = decided(Gate(floors={"auroc": 0.5}), METRICS, None)
    assert not decision["passed"]
    assert decision["reason"].startswith("failed: floors.auroc: not defined on these test rows")


def test_what_evaluate_writes_is_what_publish_reads(tmp_path: Path) -> None:
    gate = Gate(floors={"accuracy": 0.98, "auroc": 0.5}, min_lift={"5": 0.01})
    decision = decide(gate, METRICS, champion(0.05))
    (tmp_path / DECISION).write_text(json.dumps(decision.as_dict()), encoding="utf-8")
    assert read_decision(tmp_path) == decision
    with pytest.raises(RefusalError, match=r"floors.accuracy is 0.97, must be >= 0.98: off by 0.01"):
        read_decision(tmp_path).check("digits")
