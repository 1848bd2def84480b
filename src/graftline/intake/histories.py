"""Interactions that were looked at, as the histories that validate will see: a row a user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np

from graftline.errors import InputError, nearest
from graftline.intake.look import Look
from graftline.intake.roles import Wishes
from graftline.raw.batches import RawBatch
from graftline.raw.histories import gathered
from graftline.raw.reader import Asked
from graftline.values import guesses
from graftline.values.guesses import Sampled, spelling

_USERS = re.compile(
    r"(user|customer|client|member|account|session|visitor|reader|buyer|patient|package)(_?(id|no|key))?"
)
_ITEMS = re.compile(
    r"(item|movie|film|product|article|book|track|song|artist|video|page|app|sku|dependency|isbn)(_?(id|no|key))?"
)
_TIMES = re.compile(r"(time|date|timestamp|at|when|day)|.+_(at|time|date)|event_?time")


@dataclass(frozen=True)
class Interactions:
    """Which columns of a table say who took what, and when."""

    user: str
    item: str
    time: str | None = None


def named(look: Look, user: str | None, item: str | None, time: str | None, wishes: Wishes) -> Interactions | None:
    """Return the columns that were named, or those of a table that by its columns' names can be nothing else.

    Nothing is guessed of a table of which is said what a model sees or predicts.

    Raises:
        InputError: only one of both is named, there is no such column, or what is wished goes with no history.
    """
    given = {"--user": user, "--item": item, "--time": time}
    for flag, name in given.items():
        if name is not None and name not in look.columns:
            found = f"there is no column '{name}'{nearest(name, list(look.columns))}"
            raise InputError(flag, found, expected="one of " + ", ".join(look.columns))
        if name is not None and name in wishes.ignored:
            raise InputError(flag, f"'{name}' is named by --ignore too", fix="leave one of them out")
    if user is not None and item is not None:
        others = {"--label": wishes.label, "--text": wishes.features, "--group": wishes.group}
        if wrong := [flag for flag, value in others.items() if value]:
            found = f"given together with {' and '.join(wrong)}"
            raise InputError("--user and --item", found, expected="one or the other", fix="leave one of them out")
        return Interactions(user, item, time)
    if (user, item, time) != (None, None, None):
        raise InputError("--user and --item", "one without the other", expected="both: who, and what", fix="name both")
    if wishes.label is not None or wishes.features or wishes.group is not None:
        return None
    columns = {name: column for name, column in look.columns.items() if name not in wishes.ignored}
    if any(guesses.feature(column) for column in columns.values() if _is_read(column)):
        return None
    users, items = ([name for name in columns if pattern.fullmatch(spelling(name))] for pattern in (_USERS, _ITEMS))
    times = [name for name in columns if _TIMES.fullmatch(spelling(name))]
    if len(users) != 1 or len(items) != 1:
        return None
    return Interactions(users[0], items[0], times[0] if len(times) == 1 else None)


def of_histories(look: Look, of: Interactions, wishes: Wishes) -> Wishes:
    """Return the wishes as they are of the histories: the other columns of `look` are left out.

    Raises:
        InputError: the subject is a column of which a user has several values.
    """
    others = tuple(name for name in look.columns if name not in astuple(of))
    if wishes.subject and wishes.subject in look.columns and wishes.subject != of.user:
        raise InputError(
            "--subject", f"'{wishes.subject}' has several values a user", expected=f"'{of.user}'",
            fix="leave it out; or, if the rows are no interactions, name --label or --text",
        )  # fmt: skip
    ignored = tuple(name for name in wishes.ignored if name not in others)
    return replace(wishes, label="", features=(of.item,), ignored=ignored, group="", left_out=others)


def _is_read(column: Sampled) -> bool:
    """Return whether a model could read the values: pictures, lists, or text of some words."""
    return guesses.reads_like_text(column) or not (column.whole or column.number or column.words)


def histories(look: Look, of: Interactions) -> Look:
    """Return what was seen, gathered by user. Raises InputError as `raw.histories.gathered` does."""
    source = look.source.model_copy(update={"user": of.user, "time": of.time})

    def read(asked: Asked) -> Iterator[RawBatch]:
        for batch in look.batches:
            cells = np.where(batch.cells == len(batch.columns), len(asked.columns), -1)
            yield replace(batch, columns={name: batch.columns[name] for name in asked.columns}, cells=cells)

    batches, first = [], 0
    for batch in gathered(read, Asked((of.user, of.item), source, "drop")):
        batches.append(replace(batch, first_row=first))
        first += batch.rows
    return replace(look, source=source, rows=first, batches=tuple(batches), class_names={})
