"""The gate: the rules that a task declares, applied to what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graftline.components.evaluate.champion import Comparison
from graftline.tasks.evaluate import Gate


@dataclass(frozen=True)
class Rule:
    """One check. Most quantities are fractions, so margins of different rules compare."""

    name: str
    value: float | None
    """What was measured; None if it could not be, and then the rule fails."""
    limit: float
    comparison: str
    """`>=` or `<=`: how the value must stand to the limit."""
    note: str = ""
    """Why the value is None."""
    scale: float = 1.0
    """What the margin of a quantity that is no fraction is divided by, to compare it with the others."""

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.limit if self.comparison == ">=" else self.value <= self.limit

    @property
    def margin(self) -> float | None:
        """How far inside the limit the value is; negative if outside; None if there is no value."""
        if self.value is None:
            return None
        return self.value - self.limit if self.comparison == ">=" else self.limit - self.value

    def sentence(self) -> str:
        """Return what the rule found, with its margin."""
        if self.value is None or self.margin is None:
            return f"{self.name}: {self.note}"
        verdict = "met" if self.passed else "missed"
        condition = f"{verdict} {self.comparison} {self.limit:.4f} by {abs(self.margin):.4f}"
        return f"{self.name}: {self.value:.4f} {condition}"


def decide(gate: Gate, metrics: dict[str, float], champion: Comparison | None) -> dict[str, Any]:
    """Return the decision: `passed`, `reason`, `rules` and `champion`, as decision.json holds them.

    Args:
        gate: the floors and ceilings.
        metrics: the flat metrics of the evaluation.
        champion: the comparison with the store's champion; None if the store has none.
    """
    rules = _floors(gate, metrics) + _champion_rule(gate, champion)
    return {
        "passed": all(rule.passed for rule in rules),
        "reason": _reason(rules) + ("" if champion else "; no champion to compare with"),
        "rules": [
            {key: value for key, value in asdict(rule).items() if key != "scale" and (key != "note" or value)}
            | {"passed": rule.passed, "margin": rule.margin}
            for rule in rules
        ],
        "champion": {"version": champion.version, "digest": champion.digest} if champion else None,
    }


def _labels(floor: tuple[str, float]) -> tuple[bool, int]:
    """Sort by the number of labels, `all` last."""
    return (False, int(floor[0])) if floor[0].isdecimal() else (True, 0)


def _floors(gate: Gate, metrics: dict[str, float]) -> list[Rule]:
    lifts = sorted(gate.min_lift.items(), key=_labels)
    declared = [
        ("min_accuracy", "accuracy", gate.min_accuracy, ">="),
        ("max_ece", "ece", gate.max_ece, "<="),
        ("min_class_recall", "min_class_recall", gate.min_class_recall, ">="),
        ("max_perplexity", "perplexity", gate.max_perplexity, "<="),
        *((f"min_lift.{name}", f"lift_{name}", floor, ">=") for name, floor in lifts),
    ]
    return [
        Rule(
            name, metrics.get(metric), limit, comparison,
            "" if metric in metrics else f"this head has no {metric}; set gate.{name} to null",
            limit if metric == "perplexity" else 1.0,
        )
        for name, metric, limit, comparison in declared
        if limit is not None
    ]  # fmt: skip


def _champion_rule(gate: Gate, champion: Comparison | None) -> list[Rule]:
    """Return the rule against a significant loss, or nothing if there is no champion or the rule is off."""
    if champion is None or gate.max_champion_loss is None:
        return []
    value = champion.difference.high if champion.difference else None
    limit = -gate.max_champion_loss if gate.max_champion_loss else 0.0  # not -0.0
    note = f"{champion.obstacle}; set gate.max_champion_loss to null to release without the comparison"
    return [Rule("max_champion_loss", value, limit, ">=", "" if champion.difference else note)]


def _reason(rules: list[Rule]) -> str:
    """Return the rule that decided: of the failed ones the worst, else the one that passed most narrowly."""
    if not rules:
        return "passed: the gate declares no rule"
    failed = [rule for rule in rules if not rule.passed]
    decider = min(failed or rules, key=_closeness)
    others = [rule.name for rule in failed if rule is not decider]
    also = f" (also failed: {', '.join(others)})" if others else ""
    return f"{'failed' if failed else 'passed'}: {decider.sentence()}{also}"


def _closeness(rule: Rule) -> float:
    return float("-inf") if rule.margin is None else rule.margin / rule.scale
