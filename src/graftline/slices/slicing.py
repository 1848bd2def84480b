"""All slices of an evaluation: those of columns, those that were asked for, those that the gate names, those found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.problems.answers import Answers
from graftline.problems.scores import MACRO_F1
from graftline.problems.sections import Section
from graftline.score import Estimate, Integers, Score
from graftline.slices.conditions import Cells, Condition, Slice, parse_slice
from graftline.slices.finding import errors, find, in_some
from graftline.slices.measuring import Gap, Judged, gaps, judge

if TYPE_CHECKING:
    from graftline.tasks.evaluate import SlicesParams

FOUND = "found on val"
MOST = 50
"""Values of a column whose groups are looked at."""


@dataclass(frozen=True)
class Sliced:
    """What was measured of slices."""

    score: Score
    judged: list[Judged]
    """By the primary score."""
    asked: dict[str, dict[str, Estimate]]
    """Of the slices that the gate names, each score that it names; left out where it cannot be judged."""
    gaps: list[Gap]
    found_on: int
    """Rows of val on which slices were looked for; 0 where none were."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `slices_judged`, `slices_worse`, `slices.SLICE.SCORE`, `slices.COLUMN.GAP`."""
        judged = [one for one in self.judged if one.value is not None]
        found: dict[str, float] = {
            "slices_judged": len(judged),
            "slices_worse": sum(one.worse is True for one in judged),
        }
        for name, scores in self.asked.items():
            found |= {f"slices.{name}.{score}": value.value for score, value in scores.items()}
        for gap in self.gaps:
            found |= gap.difference.metrics(gap.metric)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return what slices.json holds."""
        return {
            "score": self.score.name,
            "slices": [one.as_dict() for one in self.judged],
            "asked": {name: {s: asdict(v) for s, v in scores.items()} for name, scores in self.asked.items()},
            "gaps": [asdict(gap) | {"sure": gap.sure} for gap in self.gaps],
            "found_on": self.found_on,
        }


def measure_slices(
    answers: Answers, on_val: Callable[[], Answers], dataset: Path, params: SlicesParams,
    floors: dict[str, dict[str, float]], *, resamples: int, seed: int,
) -> Sliced:  # fmt: skip
    """Return the scores of slices of the test rows.

    Args:
        answers: on the test rows.
        on_val: returns those on the rows of val; called if slices are to be found.
        dataset: of the rows.
        params: which slices.
        floors: the gate's, by slice and score.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: a column is not there or has too many values, or no sum of rows tells a score.
    """
    schema, primary = read_schema(dataset), answers.primary
    if primary.score.value is None:
        raise InputError(
            "evaluate.slices", f"the primary score {primary.score.name}, which is ranked over all rows",
            expected="one that a sum over rows tells", fix="leave it out",
        )  # fmt: skip
    cells = read_cells(dataset, "test", primary.rows)
    named = _named(params, floors, cells)
    found_on = 0
    if params.find:
        found, found_on = _found(on_val(), dataset, schema, params)
        known = {one.name for one, _ in named}
        named += [(one, FOUND) for one in found if one.name not in known]
    members = in_some([one for one, _ in named], cells, "evaluate.slices")
    names = [(one.name, origin) for one, origin in named]
    judged = judge(primary, names, members, params.least_rows, resamples=resamples, seed=seed)
    asked = _asked(answers, floors, dataset, params, resamples, seed)
    groups = [
        gap for column in params.columns for gap in _gaps(answers, column, cells, params, schema, resamples, seed)
    ]
    return Sliced(primary.score, judged, asked, groups, found_on)


def read_cells(dataset: Path, split: str, rows: Integers) -> dict[str, list[Any]]:
    """Return the values of the given rows of a split, by column; not of pictures, of which a place is stored."""
    schema = read_schema(dataset)
    table = pq.read_table(dataset / f"{split}.parquet").sort_by("row")
    places = np.searchsorted(table["row"].to_numpy(), rows)
    seen = {feature.name for feature in schema.features}
    found = {}
    for name in table.column_names:
        if name != "row" and not (name in seen and pa.types.is_integer(table.schema.field(name).type)):
            found[name] = table[name].take(places).to_pylist()
    return found


def _named(params: SlicesParams, floors: dict[str, dict[str, float]], cells: Cells) -> list[tuple[Slice, str]]:
    """Return the slices that were asked for, and why, each once."""
    found: dict[str, tuple[Slice, str]] = {}
    for column in params.columns:
        for value in _values(column, cells):
            one = Slice((Condition(column, False, "=", value),))
            found.setdefault(one.name, (one, f"column {column}"))
    for text, origin in [
        *((text, "asked") for text in params.expressions),
        *((text, "gate") for text in sorted(floors)),
    ]:
        one = parse_slice(text)
        found.setdefault(one.name, (one, origin))
    return list(found.values())


def _values(column: str, cells: Cells) -> list[str]:
    """Return the values of a column. Raises InputError: it is not there, or has too many."""
    Condition(column, False, "=", "").holds(cells, "evaluate.slices.columns")
    values = sorted({str(value) for value in cells[column] if value is not None})
    if len(values) > MOST:
        raise InputError(
            "evaluate.slices.columns", f"'{column}' has {len(values)} values in the test rows",
            expected=f"at most {MOST}",
            fix=f"name the slices that matter in expressions, such as {column}={values[0]}",
        )  # fmt: skip
    return values


def _found(answers: Answers, dataset: Path, schema: Schema, params: SlicesParams) -> tuple[list[Slice], int]:
    """Return slices of val in which the model errs most, and the rows of val."""
    error = errors(answers.primary)
    if error is None:
        raise InputError(
            "evaluate.slices.find", f"the score {answers.scores[0].name}, which a row alone does not have",
            expected="0", fix="name columns or expressions",
        )  # fmt: skip
    cells = read_cells(dataset, "val", answers.primary.rows)
    seen = {feature.name for feature in schema.features}
    plain = {name: values for name, values in cells.items() if name not in seen and name != schema.label}
    lengths = {name: values for name, values in cells.items() if name in seen}
    return find(plain, lengths, error, params.find, params.least_rows), len(error)


def _asked(
    answers: Answers,
    floors: dict[str, dict[str, float]],
    dataset: Path,
    params: SlicesParams,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Estimate]]:
    """Return what the gate asks for, corrected for how many slices it names."""
    found: dict[str, dict[str, Estimate]] = {}
    names, slices = [(name, "gate") for name in floors], [parse_slice(name) for name in floors]
    for score in answers.scores:
        if score.value is None or not any(score.name in scores for scores in floors.values()):
            continue
        measured = answers.measured(score)
        members = in_some(slices, read_cells(dataset, "test", measured.rows), "evaluate.gate.slices")
        for one in judge(measured, names, members, params.least_rows, resamples=resamples, seed=seed):
            if one.value is not None and score.name in floors[one.name]:
                found.setdefault(one.name, {})[score.name] = one.value
    return found


def _gaps(
    answers: Answers, column: str, cells: Cells, params: SlicesParams, schema: Schema, resamples: int, seed: int
) -> list[Gap]:
    """Return the gaps between a column's groups; none of problems without classes."""
    values = _values(column, cells)
    if MACRO_F1 not in answers.scores or len(values) < 2:
        return []
    members = in_some([Slice((Condition(column, False, "=", value),)) for value in values], cells, "evaluate.slices")
    classes = [str(name) for name in schema.classes]
    counts = answers.measured(MACRO_F1)
    return gaps(column, values, members, counts, classes, params.least_rows, resamples=resamples, seed=seed)


def sections(sliced: Sliced) -> list[Section]:
    """Return the report's sections."""
    judged = [one for one in sliced.judged if one.value is not None]
    scale = 100 if sliced.score.share else 1
    unit = "In percent and points" if sliced.score.share else "In the score's unit"
    count = sum(one.origin == FOUND for one in sliced.judged)
    found = f" {count} were found on the {sliced.found_on:,} rows of val." if sliced.found_on else ""
    made = [
        Section(
            "Whom it fails",
            f"Test {sliced.score.title} of slices, and the difference to all other rows. {unit}; intervals hold at 95% "
            f"for all {len(judged)} judged slices at once (Bonferroni).{found}",
            header=("slice", "why", "rows", sliced.score.name, "against other rows", "verdict"),
            lines=tuple(
                (one.name, one.origin, f"{one.rows:,}", _told(one.value, scale), _told(one.difference, scale, "+"),
                 one.verdict)
                for one in sliced.judged
            ),
        )
    ]  # fmt: skip
    if sliced.gaps:
        made.append(
            Section(
                "Differences between groups",
                "Equal opportunity: how many of a class are told to be of it; demographic parity: how many of all are. "
                "The class with the largest difference between two groups, in points, corrected for all classes and "
                "pairs. A difference in parity alone may be one in the data.",
                header=("column", "kind", "class", "most", "least", "difference", "verdict"),
                lines=tuple(_line(gap) for gap in sliced.gaps),
            )
        )
    return made


def _line(gap: Gap) -> tuple[str, ...]:
    most, least = (f"{name} ({100 * gap.groups[name]:.1f}%)" for name in (gap.most, gap.least))
    verdict = "a difference" if gap.sure else "no difference is sure"
    return gap.column, gap.kind, gap.label, most, least, gap.difference.told("+.4g", 100), verdict


def _told(value: Estimate | None, scale: int, sign: str = "") -> str:
    return "" if value is None else value.told(f"{sign}.4g", scale)
