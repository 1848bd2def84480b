"""One pass over the raw rows: judge each, quarantine the bad ones, write the others, count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.components.validate import report
from graftline.components.validate.outputs import Outputs
from graftline.raw.batches import RawBatch
from graftline.tasks.validate import ValidateParams
from graftline.values import identity, leakage, profile
from graftline.values.columns import fact_frame, read_columns, row_digests
from graftline.values.contract import Contract
from graftline.values.erased import Erasures, withheld
from graftline.values.facts import ColumnBatch, shorten
from graftline.values.suite import Failure, Judge, row_rules, unique_rules

WITHHELD = "(withheld: a subject's id)"
NAMED_ROWS = 5
"""How many rows an error names."""


@dataclass
class Tally:
    """What is counted over all rows."""

    rows: int = 0
    bad_rows: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    """Failing rows by rule."""
    first_rows: dict[str, list[int]] = field(default_factory=dict)
    """The first failing rows of each rule."""
    examples: list[tuple[int, str, str]] = field(default_factory=list)
    """The first lines of the quarantine."""
    nulls: Counter[str] = field(default_factory=Counter)
    """Missing values by column."""

    def add(self, batch_rows: int, lines: list[tuple[int, str, str]]) -> None:
        self.rows += batch_rows
        self.bad_rows += len({row for row, _, _ in lines})
        for row, rule, _ in lines:
            self.by_rule[rule] += 1
            named = self.first_rows.setdefault(rule, [])
            if len(named) < NAMED_ROWS:
                named.append(row)
        self.examples += lines[: report.QUARANTINE_ROWS - len(self.examples)]

    @property
    def bad_fraction(self) -> float:
        return self.bad_rows / self.rows if self.rows else 0.0


class Validation:
    """One pass over the raw rows."""

    class_counts: np.ndarray
    """(classes, splits), int64: rows of each class in each split; of tags, words."""

    def __init__(self, contract: Contract, params: ValidateParams, outputs: Outputs, erasures: Erasures) -> None:
        self.contract, self.params, self.outputs, self.erasures = contract, params, outputs, erasures
        self.tally, self.index = Tally(), leakage.Index()
        self.profile = profile.Profile(contract)
        self.samples = report.samples_of(contract)
        self.near = contract.measure()
        self.class_counts = np.zeros((len(contract.classes), len(identity.SPLIT_NAMES)), np.int64)
        self.rules, self.unique = Judge(row_rules(contract)), unique_rules(contract)
        self.unique_judge = Judge(self.unique) if self.unique else None
        self.seen = {name: identity.SeenValues() for name, column in contract.columns.items() if column.unique}

    def add(self, batch: RawBatch) -> None:
        """Judge a batch, quarantine its bad rows, write the others."""
        columns = read_columns(batch, self.contract)
        frame = fact_frame(batch, columns, self.contract)
        for name in columns:
            self.tally.nulls[name] += int(frame[f"{name}.given"].isna().sum())
        subjects = self.erasures.hashes(columns, batch.rows)
        erased = self.erasures.of_subjects(subjects, batch.rows)
        failures = [f for f in self.rules.judge(frame) if not erased[f.index - batch.first_row]]
        lines = [self._line(failure, batch, columns) for failure in failures]
        good = ~erased
        good[[failure.index - batch.first_row for failure in failures]] = False
        taken = {name: column.take(good) for name, column in columns.items()}
        rows = np.arange(batch.first_row, batch.first_row + batch.rows)
        lines += withheld(rows[erased])
        rows = rows[good]
        if self.erasures.rows and len(rows):
            again = self.erasures.of_rows(row_digests(taken, self.contract)[1])
            lines += withheld(rows[again])
            taken, rows = {name: values.filter(~again) for name, values in taken.items()}, rows[~again]
        lines.sort()
        if self.unique_judge is not None and len(rows):
            repeated, keep = self._repeated(self.unique_judge, taken, rows)
            lines = sorted(lines + repeated)
            taken, rows = {name: values.filter(keep) for name, values in taken.items()}, rows[keep]
        self.tally.add(batch.rows, lines)
        self.outputs.add_failures(lines)
        if len(rows):
            self._add_good(rows, taken)

    def _line(self, failure: Failure, batch: RawBatch, columns: dict[str, ColumnBatch]) -> tuple[int, str, str]:
        row = int(failure.index)
        rule = self.rules.rules[failure.rule]
        if rule.column.rpartition(".")[0] == self.contract.subject:
            value = WITHHELD
        elif rule.shows == "raw":
            value = columns[rule.name.rpartition(".")[0]].as_found(row - batch.first_row)
        else:
            value = show(failure.value)
        return row, failure.rule, value

    def _repeated(
        self, judge: Judge, taken: dict[str, pa.Array], rows: np.ndarray
    ) -> tuple[list[tuple[int, str, str]], np.ndarray]:
        """Return the quarantine lines of good rows that repeat a unique value, and a mask of the others."""
        import pandas as pd

        cells = {name: self.contract.columns[name].cells(taken[name]) for name in self.seen}
        facts = {f"{name}.repeats": seen.add(cells[name]) for name, seen in self.seen.items()}
        lines = []
        keep = np.ones(len(rows), bool)
        for failure in judge.judge(pd.DataFrame(facts, index=rows)):
            position = int(np.searchsorted(rows, failure.index))
            name = failure.rule.rpartition(".")[0]
            if name == self.contract.subject:
                value = WITHHELD
            else:
                found = taken[name][position].as_py()
                value = self.contract.columns[name].show(found, cells[name][position])
            lines.append((int(failure.index), failure.rule, shorten(value)))
            keep[position] = False
        return lines, keep

    def _add_good(self, rows: np.ndarray, columns: dict[str, pa.Array]) -> None:
        of_features, of_rows = row_digests(columns, self.contract)
        labels = self._label_ids(columns)
        splits = self._splits(columns, of_features, labels)
        self._count_classes(columns, labels, splits)
        subjects = self.erasures.hashes_of(columns[self.contract.subject]) if self.contract.subject else None
        self.outputs.add_rows(rows, columns, of_rows, splits, subjects)
        self.profile.add(columns)
        for samples in self.samples:
            samples.add(columns, labels, splits)
        self.index.rows.append(rows)
        self.index.splits.append(splits)
        self.index.features.append(np.ascontiguousarray(of_features[:, :16]).view(np.uint64))
        self.index.labels.append(labels)
        if self.near is not None:
            seen = [columns[name] for name in self.contract.features]
            self.index.signatures.append(self.near.signatures(seen))

    def _label_ids(self, columns: dict[str, pa.Array]) -> np.ndarray:
        """Return (n,) int32, -1 without a label; where a row is of one class, its index."""
        if self.contract.label is None:
            return np.full(len(columns[self.contract.feature[0]]), -1, np.int32)
        name, column = self.contract.label
        return column.ids(columns[name])

    def _count_classes(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        if not self.contract.classes:
            return
        assert self.contract.label is not None
        name, column = self.contract.label
        members, each = column.members(columns[name], labels)
        given = members >= 0
        np.add.at(self.class_counts, (members[given], np.repeat(splits, each)[given]), 1)

    def _splits(self, columns: dict[str, pa.Array], digests: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.contract.split is not None:
            names = pa.array(identity.SPLIT_NAMES)
            splits = pc.index_in(columns[self.contract.split], names).to_numpy(zero_copy_only=False).astype(np.uint8)
        else:
            splits = identity.split_by_digest(digests, self.params.test_fraction, self.params.val_fraction)
        in_pool = np.zeros(len(labels), bool) if self.contract.label is None else labels < 0
        return np.where(in_pool, identity.UNLABELLED, splits).astype(np.uint8)


def show(value: Any) -> str:
    """Return a failing value as the quarantine shows it."""
    if value is None or value != value:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return shorten(str(value))
