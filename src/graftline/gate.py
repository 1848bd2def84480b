"""The gate: the rules that a task declares, applied to what was measured, and checked once more before a release.

evaluate writes the decision and signs it with its record; publish reads it and releases nothing unless every rule holds
by its own numbers too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from graftline.canonical import read_json
from graftline.errors import InputError, RefusalError, nearest
from graftline.score import Estimate, Score
from graftline.slices.conditions import parse_slice
from graftline.tasks.parameters import Params

DECISION = "decision.json"
_BEFORE = {
    "min_accuracy": ("floors", "accuracy"),
    "max_ece": ("ceilings", "ece"),
    "min_class_recall": ("floors", "min_class_recall"),
    "max_perplexity": ("ceilings", "perplexity"),
}
"""How limits were spelled when the gate knew four scores by name; still read."""


class Gate(Params):
    """What a model must satisfy to be released. A floor or ceiling that is null is not checked."""

    floors: dict[str, float | None] = Field(default={})
    """Least value of a score on the test rows, by the score's name, such as `{"accuracy": 0.97, "macro_f1": 0.9}`."""
    ceilings: dict[str, float | None] = Field(default={})
    """Largest value of a score on the test rows, by the score's name, such as `{"ece": 0.1}`."""
    min_lift: dict[str, float] = Field(default={})
    """Least mean lift of pretraining, in the primary score, by label count: one of `lift_labels` as text, or `all`."""
    slices: dict[str, dict[str, float]] = Field(default={})
    """Least value of scores on slices of the test rows, such as `{"designer=noto": {"accuracy": 0.3}}`; a slice that is
    too small to judge fails. See `evaluate.slices`."""
    max_champion_loss: float | None = Field(default=0.0, ge=0)
    """How much of the primary score may be lost against the champion, at least 0: the gate refuses when even the better
    end of the difference's 95% interval is worse than that. 0 refuses a significant loss; null compares nothing."""

    @field_validator("slices")
    @classmethod
    def _are_slices(cls, slices: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for text in slices:
            parse_slice(text)
        return slices

    @model_validator(mode="before")
    @classmethod
    def _read_old_spelling(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values = {name: value for name, value in given.items() if name not in _BEFORE}
        for old in given.keys() & _BEFORE.keys():
            kind, score = _BEFORE[old]
            limits = values.get(kind, {})
            if not isinstance(limits, dict):
                continue  # said of the new spelling
            if score in limits:
                raise ValueError(f"{old} and {kind}.{score} say the same; keep {kind}.{score}")
            values[kind] = {**limits, score: given[old]}
        return values

    def check_names(self, scores: Sequence[Score], where: str, of_slices: Sequence[Score] | None = None) -> None:
        """Return if the problem has every score that is named, and each limit can be reached.

        Args:
            scores: of the problem, the primary one first.
            where: the parameters' name for errors.
            of_slices: what slices have, where that is less than all.

        Raises:
            InputError: a floor or a ceiling of a score that the problem does not have, or beyond the score's range.
        """
        everywhere = {score.name: score for score in scores}
        on_slices = everywhere if of_slices is None else {score.name: score for score in of_slices}
        limited: list[tuple[str, Mapping[str, float | None]]] = [("floors", self.floors), ("ceilings", self.ceilings)]
        limited += [(f"slices.{name}", limits) for name, limits in self.slices.items()]
        for kind, limits in limited:
            known = on_slices if kind.startswith("slices.") else everywhere
            for name, limit in limits.items():
                if limit is None:
                    continue
                place = f"{where}: evaluate.gate.{kind}.{name}"
                score = known.get(name)
                if score is None:
                    raise InputError(
                        place,
                        f"this problem has no such score{nearest(name, list(known))}",
                        expected="one of " + ", ".join(known),
                    )
                if not score.lowest <= limit <= score.highest:
                    within = f"{score.lowest:g} to {score.highest:g}" if score.share else f"at least {score.lowest:g}"
                    raise InputError(place, f"{limit:g}", expected=within)
                if kind.startswith("slices.") and (score.value is None or not score.higher):
                    found = f"{name}, of which less is better or which no sum of rows tells"
                    raise InputError(place, found, expected="a score that has a floor on some rows")
        changes = {f"min_lift.{count}": floor for count, floor in self.min_lift.items()}
        for name, change in (changes | {"max_champion_loss": self.max_champion_loss or 0.0}).items():
            if abs(change) > scores[0].highest - scores[0].lowest:
                raise InputError(
                    f"{where}: evaluate.gate.{name}",
                    f"{change:g}",
                    expected="a fraction from -1 to 1",
                    fix=f"{scores[0].name} is one: 5 points are 0.05",
                )


@dataclass(frozen=True)
class Comparison:
    """The challenger against the champion, by the primary score."""

    score: Score
    version: int
    digest: str
    """Content digest of the champion's release."""
    difference: Estimate | None
    """The challenger's value less the champion's, by paired bootstrap; None if they do not compare."""
    value: float | None = None
    """The champion's, on the same rows."""
    obstacle: str = ""
    """Why they do not compare."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics; none if the models do not compare."""
        if self.difference is None or self.value is None:
            return {}
        return {
            f"champion_{self.score.name}": self.value,
            "champion_difference": self.difference.value,
            "champion_difference_low": self.difference.low,
            "champion_difference_high": self.difference.high,
        }

    @property
    def most_gained(self) -> float | None:
        """The better end of the difference's interval: below 0 it is sure that something was lost."""
        if self.difference is None:
            return None
        return max(self.score.gain(end, 0.0) for end in (self.difference.low, self.difference.high))


@dataclass(frozen=True)
class Rule:
    """One rule of the decision."""

    name: str
    """Where the parameter stands below `gate`: `floors.macro_f1`."""
    passed: bool
    """As evaluate stated it."""
    value: float | None
    """What was measured; None if it could not be, and then the rule fails."""
    limit: float | None
    comparison: str | None
    """`>=` or `<=`: how the value must stand to the limit."""
    note: str = ""
    """Why the value is None."""

    @classmethod
    def judge(
        cls, name: str, value: float | None, limit: float, comparison: Literal[">=", "<="], note: str = ""
    ) -> Rule:
        passed = value is not None and (value >= limit if comparison == ">=" else value <= limit)
        return cls(name, passed, value, limit, comparison, "" if value is not None else note)

    @property
    def margin(self) -> float | None:
        """How far inside the limit the value is; negative if outside; None if there is no value."""
        if self.value is None or self.limit is None:
            return None
        return self.value - self.limit if self.comparison == ">=" else self.limit - self.value

    @property
    def holds(self) -> bool:
        """Whether the rule passes by its stated verdict and, where it has a limit, by its numbers."""
        return self.passed and (self.limit is None or (self.margin is not None and self.margin >= 0))

    @property
    def closeness(self) -> float:
        """The margin as a share of the limit where that is no fraction, so that margins of different rules compare."""
        if self.margin is None or self.limit is None:
            return -math.inf
        return self.margin / max(1.0, abs(self.limit))

    def found(self) -> str:
        """Return what evaluate says of it, with the margin."""
        if self.value is None or self.margin is None or self.limit is None:
            return f"{self.name}: {self.note}"
        verdict = "met" if self.passed else "missed"
        return f"{self.name}: {self.value:.4f} {verdict} {self.comparison} {self.limit:.4f} by {abs(self.margin):.4f}"

    def refusal(self) -> str:
        """Return what publish says of it if it does not hold: what it asks, what was found, and how far it is off."""
        if self.value is None or self.limit is None:
            return f"{self.name} (no value)"
        off = abs(self.value - self.limit)
        said = f"{self.name} is {self.value:.6g}, must be {self.comparison} {self.limit:.6g}: off by {off:.6g}"
        return f"{said}, though the decision says that it passed" if self.passed else said

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "note" or value} | {"margin": self.margin}


@dataclass(frozen=True)
class Decision:
    """What evaluate decided: the content of decision.json."""

    passed: bool
    reason: str
    rules: tuple[Rule, ...]
    champion: dict[str, Any] | None
    """`version` and `digest` of the release that the model was compared with."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "reason": self.reason,
            "rules": [rule.as_dict() for rule in self.rules],
            "champion": self.champion,
        }

    def check(self, task: str) -> None:
        """Return if the model may be released. Raises RefusalError: each rule that fails, and by how much."""
        failed = [rule.refusal() for rule in self.rules if not rule.holds]
        if failed:
            raise RefusalError(f"{task}: nothing was released; " + "; ".join(failed))
        if not self.passed:
            raise RefusalError(f"{task}: nothing was released; {self.reason}")


def decide(gate: Gate, metrics: Mapping[str, Any], champion: Comparison | None) -> Decision:
    """Return the decision.

    Args:
        gate: the floors and ceilings.
        metrics: of the evaluation: each score and each `lift_<count>` by name.
        champion: the comparison with the store's champion; None if the store has none.
    """
    rules = (*_limits(gate, metrics), *_against_champion(gate, champion))
    reason = _reason(rules) + ("" if champion else "; no champion to compare with")
    named = {"version": champion.version, "digest": champion.digest} if champion else None
    return Decision(all(rule.passed for rule in rules), reason, rules, named)


def _limits(gate: Gate, metrics: Mapping[str, Any]) -> Iterator[Rule]:
    """Yield the rules in the order of their names: parameters' keys are in another order in a file and in a record."""
    unknown = "not defined on these test rows; leave it out of the gate, or give other rows"
    for name, limit in sorted(gate.floors.items()):
        if limit is not None:
            yield Rule.judge(f"floors.{name}", metrics.get(name), limit, ">=", unknown)
    for name, limit in sorted(gate.ceilings.items()):
        if limit is not None:
            yield Rule.judge(f"ceilings.{name}", metrics.get(name), limit, "<=", unknown)
    small = "not judged on this slice: fewer rows than slices.least_rows, or not defined on them"
    for of, floors in sorted(gate.slices.items()):
        for name, floor in sorted(floors.items()):
            yield Rule.judge(f"slices.{of}.{name}", metrics.get(f"slices.{of}.{name}"), floor, ">=", small)
    for count, floor in sorted(gate.min_lift.items(), key=_labels):
        yield Rule.judge(f"min_lift.{count}", metrics.get(f"lift_{count}"), floor, ">=", unknown)


def _labels(floor: tuple[str, float]) -> tuple[bool, int]:
    """Sort by the number of labels, `all` last."""
    return (False, int(floor[0])) if floor[0].isdecimal() else (True, 0)


def _against_champion(gate: Gate, champion: Comparison | None) -> Iterator[Rule]:
    """Yield the rule against a significant loss, if there is a champion and the rule is on."""
    if champion is None or gate.max_champion_loss is None:
        return
    limit = -gate.max_champion_loss if gate.max_champion_loss else 0.0  # not -0.0
    note = f"{champion.obstacle}; set gate.max_champion_loss to null to release without the comparison"
    yield Rule.judge("max_champion_loss", champion.most_gained, limit, ">=", note)


def _reason(rules: Sequence[Rule]) -> str:
    """Return the rule that decided: of the failed ones the worst, else the one that passed most narrowly."""
    if not rules:
        return "passed: the gate declares no rule"
    failed = [rule for rule in rules if not rule.passed]
    decider = min(failed or rules, key=lambda rule: rule.closeness)
    others = [rule.name for rule in failed if rule is not decider]
    also = f" (also failed: {', '.join(others)})" if others else ""
    return f"{'failed' if failed else 'passed'}: {decider.found()}{also}"


def read_decision(evaluation: Path) -> Decision:
    """Return the decision in the folder. Raises InputError if it is not one."""
    path = evaluation / DECISION
    value = read_json(path)
    try:
        rules = tuple(_read_rule(rule) for rule in value["rules"])
        return Decision(_bool(value["passed"]), str(value["reason"]), rules, _read_champion(value["champion"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"not a decision ({error!r})", fix="run evaluate again") from None


def _read_rule(value: dict[str, Any]) -> Rule:
    rule = Rule(
        str(value["name"]),
        _bool(value["passed"]),
        _number(value["value"]),
        _number(value["limit"]),
        value.get("comparison"),
        str(value.get("note", "")),
    )
    if rule.margin is not None and rule.comparison not in (">=", "<="):
        raise ValueError(f"comparison {rule.comparison!r} of rule {rule.name}")
    return rule


def _read_champion(value: dict[str, Any] | None) -> dict[str, Any] | None:
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
