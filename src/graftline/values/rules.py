"""A rule of a contract: one expectation on one column of a frame of facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One expectation on one column of a frame of facts."""

    name: str
    """As the quarantine and the report show it: `image.max`."""
    column: str
    expectation: str
    """The name of a Great Expectations class."""
    arguments: dict[str, Any]
    text: str
    """What holds if the rule passes, for people."""
    shows: str = "fact"
    """What the quarantine shows as the value: the fact, or the raw value as found."""


def between(name: str, column: str, low: float | None, high: float | None, text: str, shows: str = "fact") -> Rule:
    """Return the rule that a fact lies between two bounds, of which None is no bound."""
    arguments = {key: bound for key, bound in (("min_value", low), ("max_value", high)) if bound is not None}
    return Rule(name, column, "ExpectColumnValuesToBeBetween", arguments, text, shows)


def among(name: str, column: str, allowed: tuple[Any, ...]) -> Rule:
    """Return the rule that a fact is one of some values."""
    text = f"one of {listed(allowed)}"
    return Rule(name, column, "ExpectColumnValuesToBeInSet", {"value_set": list(allowed)}, text)


def without(name: str, faults: Mapping[str, str]) -> list[Rule]:
    """Return the rules that a value of a column has none of some faults; each has its name and what else holds."""
    null = "ExpectColumnValuesToBeNull"
    return [Rule(f"{name}.{rule}", f"{name}.{rule}", null, {}, text) for rule, text in faults.items()]


def listed(values: tuple[Any, ...]) -> str:
    """Return the first values for people."""
    return ", ".join(map(str, values[:20])) + (", ..." if len(values) > 20 else "")
