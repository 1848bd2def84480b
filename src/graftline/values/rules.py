"""A rule on one column of a frame of facts: an expectation, and its words for people."""

from __future__ import annotations

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


def between(
    name: str, column: str, low: float | None, high: float | None, text: str, shows: str = "fact"
) -> Rule:
    arguments = {key: bound for key, bound in (("min_value", low), ("max_value", high)) if bound is not None}
    return Rule(name, column, "ExpectColumnValuesToBeBetween", arguments, text, shows)
