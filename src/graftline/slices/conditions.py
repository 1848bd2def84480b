"""Slices: rows that conditions on their columns choose, such as `designer=noto & length(text)>20`. Without torch."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.errors import InputError, nearest

Sets = NDArray[np.bool_]
Cells = Mapping[str, list[Any]]
"""The values of n rows, by column."""

_CONDITION = re.compile(
    r"\s*(?:length\(\s*(?P<long>[^()]+?)\s*\)|(?P<column>[^=<>!~&]+?))\s*(?P<how><=|>=|!=|=|<|>|~)\s*(?P<value>[^&]+?)\s*"
)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
EXPECTED = "conditions such as language=tr, page~tr-*, age>=40 or length(text)>20, with & between two"


@dataclass(frozen=True)
class Condition:
    """What one column must be."""

    column: str
    length: bool
    """Whether not the value but its length counts: words of a text, items of a list."""
    how: str
    """`=`, `!=`, `<`, `<=`, `>`, `>=`; or `~`, whose value has `*`, `?` and `[...]` as in file names."""
    value: str

    @property
    def name(self) -> str:
        return f"{f'length({self.column})' if self.length else self.column}{self.how}{self.value}"

    def holds(self, cells: Cells, where: str) -> Sets:
        """Return (n,): in which rows it holds; a row without a value is in no slice.

        Raises:
            InputError: there is no such column, or it has no length or no numbers.
        """
        if self.column not in cells:
            found = f"no column '{self.column}'{nearest(self.column, list(cells))}"
            raise InputError(where, found, expected="one of " + ", ".join(cells))
        try:
            return np.array([self._holds(value) for value in cells[self.column]], dtype=bool)
        except TypeError:
            raise InputError(
                where, f"'{self.name}' of a column that has no {'length' if self.length else 'order'}",
                expected="a text or a list for length(), numbers for < and >",
            ) from None  # fmt: skip

    def _holds(self, value: Any) -> bool:
        if value is None:
            return False
        if self.length:
            value = len(value.split()) if isinstance(value, str) else len(value)
        if self.how in _ORDERS:
            if isinstance(value, str | bool):
                raise TypeError(value)
            return _ORDERS[self.how](float(value), float(self.value))
        if self.how == "~":
            return fnmatchcase(str(value), self.value)
        return _equal(value, self.value) == (self.how == "=")


def _equal(value: Any, text: str) -> bool:
    """Return whether a value is what a text says; of numbers 1.0 is 1."""
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    if isinstance(value, int | float):
        try:
            return value == float(text)
        except ValueError:
            return False
    return str(value) == text


@dataclass(frozen=True)
class Slice:
    """The rows in which all of some conditions hold."""

    conditions: tuple[Condition, ...]

    @property
    def name(self) -> str:
        return " & ".join(condition.name for condition in self.conditions)

    def rows(self, cells: Cells, where: str) -> Sets:
        """Return (n,): which rows are in it. Raises InputError as `Condition.holds` does."""
        found: Sets = np.logical_and.reduce([condition.holds(cells, where) for condition in self.conditions])
        return found


def parse_slice(text: str) -> Slice:
    """Return the slice that a text says. Raises ValueError: it is none."""
    found = [_CONDITION.fullmatch(part) for part in text.split("&")]
    if not all(found):
        raise ValueError(f"{text!r} is no slice; expected {EXPECTED}")
    made = [
        Condition(part["long"] or part["column"], part["long"] is not None, part["how"], part["value"])
        for part in found if part
    ]  # fmt: skip
    for condition in made:
        if condition.how in _ORDERS or condition.length:
            try:
                float(condition.value)
            except ValueError:
                raise ValueError(f"{text!r} compares with {condition.value!r}; expected a number") from None
    return Slice(tuple(made))
