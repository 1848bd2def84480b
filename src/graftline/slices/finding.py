"""Slices that nobody named: where a model errs more than elsewhere, by one or two conditions.

S. Sagadeeva and M. Boehm, "SliceLine: fast, linear-algebra-based slice finding for ML model debugging", SIGMOD 2021: a
slice's score weighs how much larger its mean error is against how few rows it has. They go on level by level; here all
pairs are looked at in two matrix products. What is found is measured on other rows than it was found on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from graftline.score import Floats, RowStatistics
from graftline.slices.conditions import Cells, Condition, Sets, Slice

ALPHA = 0.95
"""The weight of the error against that of the size, as in the paper's experiments."""
VALUES = 20
"""Different values of a column, at most, each of which may be a condition; of more numbers the outer quarters are."""


def errors(measured: RowStatistics) -> Floats | None:
    """Return (n,) how far each row is from the best value, NaN where it adds nothing; None of what no row has alone."""
    score = measured.score
    if score.value is None:
        return None
    alone: Floats = score.value(measured.statistics.astype(np.float64))
    if not np.isfinite(alone).any():
        return None
    return score.highest - alone if score.higher and score.share else alone if not score.higher else None


def find(cells: Cells, lengths: Cells, error: Floats, count: int, least: int) -> list[Slice]:
    """Return at most `count` slices with the largest scores above 0, the worst first.

    Args:
        cells: the columns that conditions may be on, of n rows.
        lengths: the columns whose lengths they may be on.
        error: (n,) of each row; rows of NaN are left out.
        count: of slices.
        least: rows that a slice has at least.
    """
    known = np.isfinite(error)
    conditions = [*_conditions(cells, length=False), *_conditions(lengths, length=True)]
    if not conditions or not known.any() or error[known].mean() == 0:
        return []
    both = {**cells, **lengths}
    members = np.stack([condition.holds(both, "slices") for condition in conditions], axis=1)[known].astype(np.float64)
    error = error[known]
    sizes, sums = members.T @ members, members.T @ (members * error[:, None])
    mean, rows = error.mean(), len(error)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = ALPHA * (sums / sizes / mean - 1) - (1 - ALPHA) * (rows / sizes - 1)
    found: list[tuple[float, int, int]] = [(scores[n, n], n, n) for n in range(len(conditions)) if sizes[n, n] >= least]
    for one, two in combinations(range(len(conditions)), 2):
        apart = conditions[one].column != conditions[two].column
        if apart and sizes[one, two] >= least and sizes[one, two] < min(sizes[one, one], sizes[two, two]):
            found.append((scores[one, two], one, two))
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [
        Slice(tuple(conditions[number] for number in dict.fromkeys((one, two))))
        for score, one, two in found[:count] if score > 0
    ]  # fmt: skip


def _conditions(cells: Cells, *, length: bool) -> Iterator[Condition]:
    """Yield the conditions that columns offer."""
    for column, values in cells.items():
        given = [value for value in values if value is not None]
        if length:
            given = [len(value.split()) if isinstance(value, str) else len(value) for value in given]
        distinct = sorted(set(given), key=str) if all(isinstance(v, str | int | float) for v in given) else []
        if 2 <= len(distinct) <= VALUES and not length:
            yield from (Condition(column, length, "=", str(value)) for value in distinct)
        elif len(distinct) > 1 and not any(isinstance(value, str) for value in distinct):
            low, high = np.quantile(given, [0.25, 0.75])
            yield Condition(column, length, "<=", f"{low:g}")
            yield Condition(column, length, ">", f"{high:g}")


def in_some(slices: list[Slice], cells: Cells, where: str) -> Sets:
    """Return (n, s): which rows are in which of the slices. Raises InputError as `Slice.rows` does."""
    rows = len(next(iter(cells.values())))
    found: Sets = np.stack([one.rows(cells, where) for one in slices], axis=1) if slices else np.zeros((rows, 0), bool)
    return found
