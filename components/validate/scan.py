"""One pass over the raw rows: judge each, quarantine the bad ones, write the others, count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.components.validate import report
from graftline.components.validate.held import Held, Rows
from graftline.components.validate.outputs import Outputs
from graftline.errors import InputError
from graftline.raw.batches import LeftOut, RawBatch
from graftline.tasks.validate import ValidateParams
from graftline.values import identity, leakage, placing, profile
from graftline.values.column import Feature
from graftline.values.columns import fact_frame, loose_digests, read_columns, row_digests
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
    left_out: Counter[str] = field(default_factory=Counter)
    """Good rows that are in no split, by rule: they are in the quarantine and count as no bad ones."""
    examples: list[tuple[int, str, str]] = field(default_factory=list)
    """The first lines of the quarantine."""
    nulls: Counter[str] = field(default_factory=Counter)
    """Missing values by column."""
    changes: dict[str, Counter[str]] = field(default_factory=dict)
    """Of each column, how many values each change was made to on reading."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """How much of the raw data was passed over, by the reason."""
    dropped: dict[str, None] = field(default_factory=dict)
    """Columns of the raw data that the contract does not name, in the order in which they were found."""
    named: list[LeftOut] = field(default_factory=list)
    """The first of it."""
    names_files: bool = True
    """Whether files that are no rows are named: not where a name may hold the id of a person."""

    def add(self, batch_rows: int, lines: list[tuple[int, str, str]]) -> None:
        self.rows += batch_rows
        self.bad_rows += len({row for row, _, _ in lines})
        for row, rule, _ in lines:
            self.by_rule[rule] += 1
            named = self.first_rows.setdefault(rule, [])
            if len(named) < NAMED_ROWS:
                named.append(row)
        self._show(lines)

    def leave_out(self, lines: list[tuple[int, str, str]]) -> None:
        self.left_out.update(rule for _, rule, _ in lines)
        self._show(lines)

    def _show(self, lines: list[tuple[int, str, str]]) -> None:
        self.examples += lines[: report.QUARANTINE_ROWS - len(self.examples)]

    def pass_over(self, left_out: Sequence[LeftOut]) -> None:
        self.passed_over.update(one.why for one in left_out)
        if self.names_files:
            self.named += left_out[: report.QUARANTINE_ROWS - len(self.named)]

    @property
    def bad_fraction(self) -> float:
        return self.bad_rows / self.rows if self.rows else 0.0


class Validation:
    """One pass over the raw rows; over the good ones a second, where only all rows tell where each one goes."""

    class_counts: np.ndarray
    """(classes, splits), int64: rows of each class in each split; of tags, words."""

    placed: placing.Placed
    """Where the good rows went, once `close` was called."""
    split_groups: Sequence[leakage.Pair] = ()
    """Two rows of each group that the raw data's own split divides."""

    def __init__(
        self, contract: Contract, params: ValidateParams, outputs: Outputs, erasures: Erasures, held: Held | None
    ) -> None:
        self.contract, self.params, self.outputs, self.erasures = contract, params, outputs, erasures
        self.held = held
        self.tally, self.index = Tally(names_files=contract.subject is None), leakage.Index()
        self.profile = profile.Profile(contract)
        self.samples = report.samples_of(contract)
        self.near = contract.measure()
        self.class_counts = np.zeros((len(contract.classes), len(identity.SPLIT_NAMES)), np.int64)
        self.rules, self.unique = Judge(row_rules(contract)), unique_rules(contract)
        self.unique_judge = Judge(self.unique) if self.unique else None
        self.bad: list[np.ndarray] = []
        """Numbers of the rows that are no part of the dataset, batch by batch."""
        self.seen = {name: identity.SeenValues() for name, column in contract.columns.items() if column.unique}

    def add(self, batch: RawBatch) -> None:
        """Judge a batch, quarantine its bad rows, write the others."""
        columns = read_columns(batch, self.contract)
        frame = fact_frame(batch, columns, self.contract)
        self.tally.pass_over(batch.left_out)
        self.tally.dropped |= dict.fromkeys(batch.dropped)
        for name, column in columns.items():
            self.tally.nulls[name] += int(frame[f"{name}.given"].isna().sum())
            if column.changes:
                self.tally.changes.setdefault(name, Counter()).update(column.changes)
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
        left_out = self._add_good(rows, taken) if len(rows) else []
        self.tally.leave_out(left_out)
        every = np.arange(batch.first_row, batch.first_row + batch.rows)
        self.bad += [np.setdiff1d(every, rows), np.array([row for row, _, _ in left_out], np.int64)]
        self.outputs.add_failures(sorted(lines + left_out))

    def close(self) -> None:
        """End the scan: decide where rows go that were held, and write them there."""
        contract, index = self.contract, self.index.close()
        placed = self.placed = placing.Placed(index)
        if contract.group is not None and contract.split is not None:
            self.split_groups = leakage.find_split_groups(index)
        if self.held is None:
            return
        if contract.time is not None:
            self._split_by_time(contract.time)
        near = contract.near_duplicates
        if near is not None and near.action != "stop":
            assert self.near is not None
            placing.settle_near(placed, near.action, self.near, [self.held.close()])
        if contract.group is not None or contract.time is not None:
            last = placed.index
            assert last.homes is not None
            placed.leave_out(placing.held_back(last.rows, last.splits, last.homes))
        lines = [(row, rule, value) for row, (rule, value) in sorted(placed.left_out.items())]
        self.tally.leave_out(lines)
        self.bad.append(np.array(list(placed.left_out), np.int64))
        self.outputs.add_failures(lines)
        index = placed.index
        for rows in self.held.batches():
            place = np.minimum(np.searchsorted(index.rows, rows.numbers), len(index.rows) - 1)
            stays = index.rows[place] == rows.numbers
            if stays.any():
                self._write(rows.filter(stays), index.splits[place[stays]])

    def _split_by_time(self, time: str) -> None:
        placed, params, show = self.placed, self.params, self.contract.columns[time].show_time
        index = placed.index
        homes, val, test = placing.by_time(index, params.test_fraction, params.val_fraction)
        if not (homes == identity.TRAIN).any():
            raise InputError(
                f"columns.{time}", f"no row is before {show(val)}, where val would begin",
                expected="a part of the rows that is earlier", fix="lower validate.test_fraction or val_fraction, "
                "or give the column the role metadata",
            )  # fmt: skip
        splits = np.where(index.splits == identity.UNLABELLED, identity.UNLABELLED, homes).astype(np.uint8)
        placed.index = replace(index, homes=homes, splits=splits)
        placed.notes.append(
            f"Split by '{time}': val from {show(val)} on, test from {show(test)} on; rows of one time are in one "
            "split, the later one"
        )

    def changed(self) -> list[tuple[str, str, int]]:
        """Return each column, what was done to its values on reading, and to how many."""
        return [
            (name, self.contract.columns[name].changes.get(change, change), count)
            for name, done in self.tally.changes.items()
            for change, count in sorted(done.items())
        ]

    def _line(self, failure: Failure, batch: RawBatch, columns: dict[str, ColumnBatch]) -> tuple[int, str, str]:
        row = int(failure.index)
        rule = self.rules.rules[failure.rule]
        if rule.column.rpartition(".")[0] == self.contract.subject:
            value = WITHHELD
        elif rule.shows == "raw":
            value = columns[rule.name.rpartition(".")[0]].as_found(row - batch.first_row)
            if self.contract.subject is not None:
                value = without_id(value, batch.columns[self.contract.subject][row - batch.first_row].as_py())
        else:
            value = show(failure.value)
        return row, failure.rule, value

    def _repeated(
        self, judge: Judge, taken: dict[str, pa.Array], rows: np.ndarray
    ) -> tuple[list[tuple[int, str, str]], np.ndarray]:
        """Return the quarantine lines of good rows that repeat a unique value, and a mask of the others."""
        import pandas as pd

        cells = {name: self._unique_cells(name, taken[name]) for name in self.seen}
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

    def _unique_cells(self, name: str, values: pa.Array) -> list[bytes]:
        column = self.contract.columns[name]
        cells = column.cells(values)
        return column.same(values, cells) if isinstance(column, Feature) else cells

    def _add_good(self, numbers: np.ndarray, columns: dict[str, pa.Array]) -> list[tuple[int, str, str]]:
        """Write good rows or hold them; return the quarantine's lines of those that are in no split."""
        of_features, of_rows = row_digests(columns, self.contract)
        subjects = self.erasures.hashes_of(columns[self.contract.subject]) if self.contract.subject else None
        rows, labels = Rows(numbers, columns, of_rows, subjects), self._label_ids(columns)
        homes = self._homes(rows, of_features)
        in_pool = np.zeros(len(labels), bool) if self.contract.label is None else labels < 0
        splits = np.where(in_pool, identity.UNLABELLED, homes).astype(np.uint8)
        out: dict[int, tuple[str, str]] = {}
        if self.held is None and self.contract.group is not None:
            out = placing.held_back(numbers, splits, homes)
        stays = ~np.isin(numbers, list(out))
        rows, splits = rows.filter(stays), splits[stays]
        if len(splits):
            self._index(rows, of_features[stays], labels[stays], splits, homes[stays])
            if self.held is None:
                self._write(rows, splits)
            else:
                self.held.add(rows)
        return [(row, rule, value) for row, (rule, value) in out.items()]

    def _index(
        self, rows: Rows, features: np.ndarray, labels: np.ndarray, splits: np.ndarray, homes: np.ndarray
    ) -> None:
        index, contract = self.index, self.contract
        index.rows.append(rows.numbers)
        index.splits.append(splits)
        index.features.append(_numbers(features, 2))
        index.labels.append(labels)
        if self.near is not None:
            index.signatures.append(self.near.signatures([rows.columns[name] for name in contract.features]))
        if (loose := loose_digests(rows.columns, contract)) is not None:
            index.loose.append(_numbers(loose, 1)[:, 0])
        if contract.settles or contract.group is not None:
            index.homes.append(homes)
        if contract.group is not None:
            index.groups.append(_numbers(self._group_digests(rows), 1)[:, 0])
        if contract.time is not None:
            index.times.append(contract.columns[contract.time].times(rows.columns[contract.time]))

    def _write(self, rows: Rows, splits: np.ndarray) -> None:
        """Write rows to their splits, and count them."""
        labels = self._label_ids(rows.columns)
        self._count_classes(rows.columns, labels, splits)
        self.outputs.add_rows(rows.numbers, rows.columns, rows.digests, splits, rows.subjects)
        self.profile.add(rows.columns)
        for samples in self.samples:
            samples.add(rows.columns, labels, splits)

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

    def _homes(self, rows: Rows, features: np.ndarray) -> np.ndarray:
        """Return the split of each row if it has a label, (n,) uint8; of a split by time it is still to be known."""
        digests = features if self.contract.group is None else self._group_digests(rows)
        if self.contract.split is None:
            return identity.split_by_digest(digests, self.params.test_fraction, self.params.val_fraction)
        names = pa.array(identity.SPLIT_NAMES)
        found = pc.index_in(rows.columns[self.contract.split], names)
        homes: np.ndarray = found.to_numpy(zero_copy_only=False).astype(np.uint8)
        if self.contract.brings_val:
            return homes
        drawn = identity.split_by_digest(digests, 0.0, self.params.val_fraction)
        return np.where(homes == identity.TRAIN, drawn, homes)

    def _group_digests(self, rows: Rows) -> np.ndarray:
        """Return (n, 32) uint8; of persons' ids by their keyed hashes, for a split must not tell of ids."""
        group = self.contract.group
        assert group is not None
        if group != self.contract.subject:
            return identity.group_digests(rows.columns[group])
        assert rows.subjects is not None
        return identity.group_digests(rows.subjects)


def _numbers(digests: np.ndarray, count: int) -> np.ndarray:
    """Return the first 8 bytes of (n, 32) digests, or more of them, as (n, count) uint64."""
    return np.ascontiguousarray(digests[:, : 8 * count]).view(np.uint64)


def without_id(value: str, subject: object) -> str:
    """Return a raw value without those parts of a path, or words, that hold the id of the row's person.

    Case, white space and signs count for nothing: `Patient 12` stands in patient_12/a.png too.
    """
    bare = _bare(str(subject)) if subject is not None else ""
    parts = re.split(r"([/\s]+)", value)
    if not bare or bare not in _bare(value):
        return value
    kept = [WITHHELD if bare in _bare(part) else part for part in parts]
    return "".join(kept) if kept != parts else WITHHELD  # it stretches over several parts


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def show(value: Any) -> str:
    """Return a failing value as the quarantine shows it."""
    if value is None or value != value:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return shorten(str(value))
