"""The gate's decision, checked once more: nothing is released unless every rule holds by its own numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.canonical import read_json
from graftline.errors import InputError, RefusalError

DECISION = "decision.json"


@dataclass(frozen=True)
class Rule:
    """One rule of the decision."""

    name: str
    passed: bool
    """As evaluate stated it."""
    value: float | None
    limit: float | None
    comparison: str | None
    """`>=` or `<=`: how the value must stand to the limit."""

    @property
    def holds(self) -> bool:
        """Whether the rule passes by its stated verdict and, where it has them, by its numbers."""
        if self.value is None or self.limit is None:
            return self.passed
        within = self.value >= self.limit if self.comparison == ">=" else self.value <= self.limit
        return self.passed and within

    def sentence(self) -> str:
        """Return what the rule asks, what was found, and how far it is off."""
        if self.value is None or self.limit is None:
            return f"{self.name} (no value)"
        off = abs(self.value - self.limit)
        sentence = (
            f"{self.name} is {self.value:.6g}, must be {self.comparison} {self.limit:.6g}: off by {off:.6g}"
        )
        return f"{sentence}, though the decision says that it passed" if self.passed else sentence


@dataclass(frozen=True)
class Decision:
    """What evaluate decided."""

    passed: bool
    reason: str
    rules: tuple[Rule, ...]
    champion: dict[str, Any] | None
    """`version` and `digest` of the release that the model was compared with."""

    def check(self, task: str) -> None:
        """Return if the model may be released. Raises RefusalError: each rule that fails, and by how much."""
        failed = [rule.sentence() for rule in self.rules if not rule.holds]
        if failed:
            raise RefusalError(f"{task}: nothing was released; " + "; ".join(failed))
        if not self.passed:
            raise RefusalError(f"{task}: nothing was released; {self.reason}")


def read_decision(evaluation: Path) -> Decision:
    """Return the decision in the folder. Raises InputError if it is not one."""
    path = evaluation / DECISION
    value = read_json(path)
    try:
        decision = Decision(
            _bool(value["passed"]), str(value["reason"]), tuple(_rule(rule) for rule in value["rules"]),
            _champion(value["champion"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"not a decision ({error!r})", fix="run evaluate again") from None
    return decision


def _rule(value: dict[str, Any]) -> Rule:
    rule = Rule(
        str(value["name"]), _bool(value["passed"]),
        _number(value["value"]), _number(value["limit"]), value.get("comparison"),
    )  # fmt: skip
    if rule.value is not None and rule.limit is not None and rule.comparison not in (">=", "<="):
        raise ValueError(f"comparison {rule.comparison!r} of rule {rule.name}")
    return rule


def _champion(value: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else {"version": int(value["version"]), "digest": str(value["digest"])}


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
