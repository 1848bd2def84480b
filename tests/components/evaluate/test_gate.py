"""Every rule of the gate decides, by a hair either way, and the decision names the rule and the margin."""

from __future__ import annotations

from typing import Any

import pytest

from graftline.components.evaluate.champion import Comparison
from graftline.components.evaluate.gate import decide
from graftline.errors import InputError
from graftline.evaluation.statistics import Estimate
from graftline.tasks.evaluate import EvaluateParams, Gate
from graftline.tasks.parameters import parse

HAIR = 1e-9
METRICS = {"accuracy": 0.97, "ece": 0.02, "min_class_recall": 0.9, "lift_5": 0.04, "lift_all": 0.001}
OFF = Gate(max_champion_loss=None)


def champion(high: float) -> Comparison:
    return Comparison(3, "ab" * 32, Estimate(high - 0.01, high - 0.02, high), 0.96)


def only(rules: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(rules) == 1
    return rules[0]


@pytest.mark.parametrize(
    ("field", "at_limit", "worse"),
    [
        ("min_accuracy", 0.97, 0.97 + HAIR),
        ("max_ece", 0.02, 0.02 - HAIR),
        ("min_class_recall", 0.9, 0.9 + HAIR),
        ("min_lift", {"5": 0.04}, {"5": 0.04 + HAIR}),
        ("min_lift", {"all": 0.001}, {"all": 0.001 + HAIR}),
    ],
)
def test_each_floor_and_ceiling_decides_by_a_hair(field: str, at_limit: Any, worse: Any) -> None:
    met = decide(OFF.model_copy(update={field: at_limit}), METRICS, None)
    assert met["passed"]
    assert only(met["rules"])["margin"] == 0
    missed = decide(OFF.model_copy(update={field: worse}), METRICS, None)
    assert not missed["passed"]
    rule = only(missed["rules"])
    assert not rule["passed"]
    assert rule["margin"] == pytest.approx(-HAIR, rel=1e-3)
    assert missed["reason"].startswith(f"failed: {rule['name']}: ")


@pytest.mark.parametrize("allowed", [0.0, 0.01])
def test_a_significant_loss_against_the_champion_is_refused_by_a_hair(allowed: float) -> None:
    gate = Gate(max_champion_loss=allowed)
    assert decide(gate, METRICS, champion(-allowed))["passed"]
    refused = decide(gate, METRICS, champion(-allowed - HAIR))
    assert not refused["passed"]
    assert "max_champion_loss" in refused["reason"]
    assert refused["champion"] == {"version": 3, "digest": "ab" * 32}


def test_a_loss_that_may_be_chance_passes() -> None:
    comparison = Comparison(1, "cd" * 32, Estimate(-0.01, -0.03, 0.01), 0.98)
    assert decide(Gate(max_champion_loss=0.0), METRICS, comparison)["passed"]


def test_rules_that_are_null_are_neither_checked_nor_listed() -> None:
    decision = decide(OFF, {**METRICS, "accuracy": 0.0}, champion(-0.5))
    assert decision["passed"]
    assert decision["rules"] == []
    assert "no rule" in decision["reason"]
    assert decision["champion"] == {"version": 3, "digest": "ab" * 32}


def test_the_rules_of_the_lift_are_in_the_order_of_their_labels() -> None:
    """Not in that of the parameters' keys, which a file and a record have in different orders."""
    metrics = {**METRICS, "lift_5": 0.1, "lift_10": 0.1, "lift_all": 0.1}
    for keys in (("5", "10", "all"), ("all", "10", "5")):
        decision = decide(Gate(min_lift=dict.fromkeys(keys, 0.05)), metrics, None)
        assert [rule["name"] for rule in decision["rules"]] == ["min_lift.5", "min_lift.10", "min_lift.all"]


def test_without_a_champion_the_decision_says_so() -> None:
    decision = decide(Gate(min_accuracy=0.9), METRICS, None)
    assert decision["passed"]
    assert decision["champion"] is None
    assert decision["reason"].endswith("no champion to compare with")
    assert [rule["name"] for rule in decision["rules"]] == ["min_accuracy"]


def test_a_pass_names_the_tightest_rule_and_its_margin() -> None:
    decision = decide(Gate(min_accuracy=0.95, max_ece=0.03, min_class_recall=0.8), METRICS, champion(0.05))
    assert decision["reason"] == "passed: max_ece: 0.0200 met <= 0.0300 by 0.0100"


def test_a_failure_names_the_worst_rule_and_the_others_that_failed() -> None:
    decision = decide(Gate(min_accuracy=0.98, min_class_recall=0.95, max_ece=0.5), METRICS, champion(0.05))
    assert decision["reason"] == (
        "failed: min_class_recall: 0.9000 missed >= 0.9500 by 0.0500 (also failed: min_accuracy)"
    )


def test_a_champion_that_cannot_be_compared_is_refused_with_the_way_out() -> None:
    comparison = Comparison(2, "ef" * 32, None, obstacle="mnist@2 has 9 classes, this data set has 10")
    decision = decide(Gate(max_champion_loss=0.0), METRICS, comparison)
    assert not decision["passed"]
    assert only(decision["rules"])["value"] is None
    assert "9 classes" in decision["reason"]
    assert "max_champion_loss to null" in decision["reason"]


def test_every_rule_says_value_limit_comparison_and_margin() -> None:
    rule = only(decide(OFF.model_copy(update={"max_ece": 0.05}), METRICS, None)["rules"])
    assert rule == {
        "name": "max_ece", "passed": True, "value": 0.02, "limit": 0.05, "comparison": "<=",
        "margin": 0.05 - 0.02,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"gate": {"min_acuracy": 0.9}}, "min_accuracy"),
        ({"gate": {"min_accuracy": 97}}, "less than or equal to 1"),
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
