"""What a person asks a model of ratings: users, each with rated items, and perhaps which others are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.values.column import Question, Questions
from graftline.values.items import history_of
from graftline.values.number import parse_float
from graftline.values.questions import rows_of

ASKED = "asked"
"""The key of the items to tell the ratings of."""


@dataclass(frozen=True)
class Asked:
    """A user."""

    where: str
    """The row, for messages."""
    rated: dict[str, float]
    """What he gave which item; the last rating of one that he rated twice."""
    asked: list[str] | None
    """The items to tell the ratings of; None for those that he would rate highest."""

    def check(self, least: float, largest: float) -> None:
        """Raise InputError if a rating is outside those that were learned from."""
        for item, rating in self.rated.items():
            if not least <= rating <= largest:
                raise InputError(
                    self.where, f"the rating {rating:g} of {item!r}", expected=f"from {least:g} to {largest:g}, as "
                    "those that the model learned from", fix="correct it, or bring it to that scale",
                )  # fmt: skip


def questions(schema: Schema, paths: list[Path], texts: list[str]) -> Questions:
    """Return the users in files. Raises InputError."""
    if texts:
        raise InputError(
            "--text", "a text", expected="files with a row a user: his items and their ratings",
            fix="write a .jsonl file",
        )  # fmt: skip
    items, ratings = schema.feature.name, str(schema.label)
    found = [
        Question(name, _asked(name, row, items, ratings))
        for path in paths
        for name, row in rows_of(path, [items, ratings], (ASKED,))
    ]
    if not found:
        where = ", ".join(map(str, paths)) or "the command line"
        raise InputError(
            where, "no rows", expected=f".jsonl or .parquet files with {items}, {ratings} and perhaps {ASKED}"
        )
    return Questions(found)


def _asked(where: str, row: dict[str, Any], items: str, ratings: str) -> Asked:
    listed = _listed(row.get(items))
    history_of(where, listed, items)  # that they are ids
    numbers = _listed(row.get(ratings))
    if not isinstance(listed, list) or not isinstance(numbers, list) or len(listed) != len(numbers):
        counts = [f"{len(of)} {name}" if isinstance(of, list) else f"no list '{name}'" for name, of in
                  ((items, listed), (ratings, numbers))]  # fmt: skip
        raise InputError(where, " and ".join(counts), expected="lists, with as many ratings as items")
    if not listed:
        raise InputError(where, "no item is rated", expected="one at least", fix="leave the row out")
    rated = {str(item): _rating(where, str(item), number) for item, number in zip(listed, numbers, strict=True)}
    if row.get(ASKED) is None:
        return Asked(where, rated, None)
    asked = history_of(where, _listed(row[ASKED]), ASKED)
    if not asked:
        raise InputError(
            where, f"an empty list '{ASKED}'", expected="items", fix=f"leave '{ASKED}' out for the highest"
        )
    if both := [item for item in asked if item in rated]:
        raise InputError(where, f"{both[0]!r} is rated and asked for", expected="one or the other")
    return Asked(where, rated, asked)


def _listed(value: Any) -> Any:
    """Return a value as a list, where it is text with spaces between."""
    return value.split() if isinstance(value, str) else value


def _rating(where: str, item: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else parse_float(value)
    except (TypeError, ValueError, OverflowError):  # a whole number may have any number of digits
        number = math.nan
    if not math.isfinite(number):
        raise InputError(where, f"the rating {str(value)[:40]!r} of {item[:80]!r}", expected="a finite number")
    return number
