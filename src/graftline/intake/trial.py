"""A contract tried on the rows that were looked at, by the code that validate judges with: what breaks, what splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from graftline.intake.look import Look
from graftline.raw.batches import RawBatch
from graftline.values import identity
from graftline.values.columns import fact_frame, read_columns, row_digests
from graftline.values.contract import Contract
from graftline.values.suite import Judge, row_rules


@dataclass(frozen=True)
class Trial:
    """What came of the rows that were looked at."""

    rows: int
    bad: int
    """Rows that break a rule."""
    by_rule: Counter[str]
    """Rows that break each rule."""
    digests: np.ndarray
    """(n, 32) uint8: of the features of each good row."""
    places: np.ndarray
    """(n, 32) uint8: what the split of each good row goes by: the same, or the digest of its group."""
    labels: np.ndarray
    """(n,) int32: -1 without a label; where a row is of one class its index."""
    class_rows: np.ndarray
    """(classes,): how often each stands; empty without classes."""

    @property
    def repeats(self) -> int:
        """Good rows whose features an earlier one has."""
        return len(self.digests) - len(np.unique(self._keys()))

    @property
    def conflicts(self) -> int:
        """Features that stand with two different labels."""
        pairs = np.unique(np.stack([self._keys().astype(np.int64), self.labels.astype(np.int64)], axis=1), axis=0)
        known = pairs[pairs[:, 1] >= 0, 0]
        return len(known) - len(np.unique(known))

    def splits(self, test: float, val: float, classes: int) -> np.ndarray:
        """Return (classes, 3) the labelled rows of each class in train, val and test; (1, 3) where there are none."""
        split = identity.split_by_digest(self.places, test, val)
        counts = np.zeros((max(1, classes), 3), np.int64)
        labelled = self.labels >= 0 if classes else np.ones(len(split), bool)
        np.add.at(counts, (self.labels[labelled] if classes else 0, split[labelled]), 1)
        return counts

    def _keys(self) -> np.ndarray:
        return np.ascontiguousarray(self.digests[:, :8]).view(np.uint64)[:, 0]


def try_contract(look: Look, contract: Contract) -> Trial:
    """Return what the contract makes of the rows that were looked at. Raises InputError for what validate refuses."""
    judge = Judge(row_rules(contract))
    by_rule: Counter[str] = Counter()
    bad, digests, places, labels = 0, [], [], []
    class_rows = np.zeros(len(contract.classes), np.int64)
    for batch in look.batches:
        batch = _of(batch, contract)
        columns = read_columns(batch, contract)
        failures = judge.judge(fact_frame(batch, columns, contract))
        by_rule.update(failure.rule for failure in failures)
        good = np.ones(batch.rows, bool)
        good[[failure.index - batch.first_row for failure in failures]] = False
        bad += int((~good).sum())
        taken = {name: column.take(good) for name, column in columns.items()}
        digests.append(row_digests(taken, contract)[0])
        places.append(_places(contract, taken, digests[-1]))
        labels.append(_labels(contract, taken, int(good.sum())))
        if contract.label is not None and len(class_rows):
            name, label = contract.label
            members, _ = label.members(taken[name], labels[-1])
            class_rows += np.bincount(members[members >= 0], minlength=len(class_rows))
    joined = [np.concatenate(parts) for parts in (digests, places, labels)]
    return Trial(look.looked, bad, by_rule, *joined, class_rows)


def _of(batch: RawBatch, contract: Contract) -> RawBatch:
    """Return the batch with the contract's columns only, as the reader would give them."""
    whole = batch.cells == len(batch.columns)
    columns = {name: batch.columns[name] for name in contract.columns}
    return replace(batch, columns=columns, cells=np.where(whole, len(contract.columns), -1))


def _places(contract: Contract, taken: dict[str, pa.Array], digests: np.ndarray) -> np.ndarray:
    """Return what the rows' split goes by; of persons in groups other digests, for those of a run are keyed."""
    return digests if contract.group is None else identity.group_digests(taken[contract.group])


def _labels(contract: Contract, taken: dict[str, pa.Array], rows: int) -> np.ndarray:
    if contract.label is None:
        return np.full(rows, -1, np.int32)
    name, label = contract.label
    return label.ids(taken[name])
