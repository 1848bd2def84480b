"""Datasets with other rows than the one at hand: every problem reads them as it reads any."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import SCHEMA, UNLABELLED, read_schema
from graftline.errors import InputError, nearest
from graftline.evaluation.shifts.parameters import DataShift, ShiftParams
from graftline.problems.problem import Problem
from graftline.values.corruption import Corruption

CLEAN = "clean"
TEST = "test"


@dataclass(frozen=True)
class Source:
    """A dataset, and which of its test rows are asked about."""

    folder: Path
    problem: Problem[Any]
    rows: int | None
    """How many test rows at most; None for all."""
    seed: int

    def ways(self, params: ShiftParams) -> tuple[str, ...]:
        """Return the corruptions to measure. Raises InputError for one that the columns do not have."""
        usual, known = self._common(False), self._common(True)
        for name in params.corruptions or ():
            if name not in known:
                raise InputError(
                    "evaluate.shifts.corruptions",
                    f"what this head sees cannot be spoiled by '{name}'{nearest(name, known)}",
                    expected="one of " + ", ".join(known) if known else "none, []: its columns have no such ways",
                )
        chosen = tuple(usual) if params.corruptions is None else params.corruptions
        if not chosen and not params.data:
            raise InputError(
                "evaluate.shifts", "nothing to measure: what this head sees cannot be spoiled, `data` names no rows",
                fix="name rows of another source in `data`, or leave `shifts` out",
            )  # fmt: skip
        return chosen

    def _places(self) -> tuple[int, ...]:
        """Return which of the features are spoiled."""
        spoiled = self.problem.spoiled
        return tuple(range(len(read_schema(self.folder).features))) if spoiled is None else spoiled

    def _common(self, asked: bool) -> list[str]:
        """Return the ways that all spoiled columns have; with those that have to be asked for, or without them."""
        features = [read_schema(self.folder).features[place] for place in self._places()]
        each = [(*one.corruptions, *(one.asked_corruptions if asked else ())) for one in features]
        return [name for name in (each[0] if each else ()) if all(name in ways for ways in each)]

    def table(self, split: str) -> pa.Table:
        """Return a split ordered by row; of the test rows the sample."""
        table = pq.read_table(self.folder / f"{split}.parquet").sort_by("row")
        return self.sampled(table) if split == TEST else table

    def sampled(self, table: pa.Table) -> pa.Table:
        """Return as many rows as are asked about, drawn by the seed, in their order."""
        if self.rows is None or self.rows >= len(table):
            return table
        drawn = np.random.default_rng(self.seed).permutation(len(table))[: self.rows]
        return table.take(pa.array(np.sort(drawn)))

    def write_clean(self, out: Path) -> Path:
        """Write a dataset whose test rows are those that are asked about, as they are."""
        return self._write(out, {TEST: self.table(TEST)}, read_schema(self.folder).as_dict())

    def write_spoiled(self, out: Path, by: Corruption) -> Path:
        """Write a dataset whose test rows are those that are asked about, spoiled."""
        schema, table = read_schema(self.folder), self.table(TEST)
        features = list(schema.features)
        for place in self._places():
            name = features[place].name
            rows = table["row"].to_numpy()
            mine = replace(by, seed=by.seed + place)  # two columns are not hit at the same places
            features[place], values = features[place].corrupted(table[name], self.folder, rows, mine)
            table = table.set_column(table.schema.get_field_index(name), name, values)
        changed = replace(schema, feature=features[0], more=tuple(features[1:]))
        return self._write(out, {TEST: table}, changed.as_dict())

    def write_chosen(self, out: Path, name: str, shift: DataShift) -> tuple[Path, Path]:
        """Write two datasets: of the rows that are learned from, and with the test rows of another source.

        Raises:
            InputError: there is no such column, or a split has no such rows.
        """
        tables = {split: self._matching(split, name, shift, "train") for split in ("train", "val", TEST)}
        if shift.column in pq.read_schema(self.folder / f"{UNLABELLED}.parquet").names:
            tables[UNLABELLED] = self._matching(UNLABELLED, name, shift, "train")
        schema = read_schema(self.folder).as_dict()
        near = self._write(out / "near", tables, schema)
        return near, self._write(out / "far", {TEST: self._matching(TEST, name, shift, "test")}, schema)

    def _matching(self, split: str, name: str, shift: DataShift, side: str) -> pa.Table:
        table, where = pq.read_table(self.folder / f"{split}.parquet").sort_by("row"), f"evaluate.shifts.data.{name}"
        if shift.column not in table.column_names:
            known = sorted(set(table.column_names) - {"row"})
            raise InputError(
                f"{where}.column",
                f"no column '{shift.column}'{nearest(shift.column, known)}",
                expected="one of " + ", ".join(known),
            )
        values = table[shift.column].to_pylist()
        patterns = getattr(shift, side)
        found = [any(fnmatchcase(str(value), of) for of in patterns) and value is not None for value in values]
        if not any(found):
            some = ", ".join(sorted({str(value) for value in values})[:8])
            raise InputError(
                f"{where}.{side}",
                f"no row of {split} has such a {shift.column}: {', '.join(patterns)}",
                expected=f"values such as {some}",
            )
        chosen = table.filter(pa.array(found))
        return self.sampled(chosen) if split == TEST else chosen

    def _write(self, out: Path, tables: dict[str, pa.Table], schema: dict[str, Any]) -> Path:
        """Write these splits; what else is in the dataset's folder is linked."""
        shutil.rmtree(out, ignore_errors=True)  # a run that was killed here left it
        out.mkdir(parents=True)
        for split, table in tables.items():
            pq.write_table(table, out / f"{split}.parquet")
        (out / SCHEMA).write_text(json.dumps(schema), encoding="utf-8")
        for path in sorted(self.folder.iterdir()):
            if not (out / path.name).exists() and path.suffix != ".json" and path.is_file():
                (out / path.name).symlink_to(path.resolve())
        return out
