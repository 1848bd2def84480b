"""A contract tried on the rows that were looked at, by the code that validate judges with: what breaks, what splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    own: np.ndarray | None
    """(n,) uint8: the split of each good row that the data brings, if it brings one."""
    brings_val: bool
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
        split = identity.split_by_digest(self.places, test if self.own is None else 0.0, val)
        if self.own is not None:
            split = self.own if self.brings_val else np.where(self.own == identity.TRAIN, split, self.own)
        of = np.where(self.labels >= 0, self.labels, -1) if classes else np.zeros(len(split), np.int32)
        cells = (of.astype(np.int64) * 3 + split)[of >= 0]
        return np.bincount(cells, minlength=3 * max(1, classes)).reshape(-1, 3)

    def groups(self, classes: int) -> np.ndarray:
        """Return (classes,) in how many groups each class has a labelled row; (1,) where there are no classes."""
        of = np.where(self.labels >= 0, self.labels, -1) if classes else np.zeros(len(self.labels), np.int32)
        place = np.ascontiguousarray(self.places[:, :8]).view(np.uint64)[:, 0]
        known = of >= 0
        pairs = np.unique(np.stack([of[known].astype(np.uint64), place[known]], axis=1), axis=0)
        return np.bincount(pairs[:, 0].astype(np.int64), minlength=max(1, classes))

    def _keys(self) -> np.ndarray:
        return np.ascontiguousarray(self.digests[:, :8]).view(np.uint64)[:, 0]


def try_contract(look: Look, contract: Contract) -> Trial:
    """Return what the contract makes of the rows that were looked at. Raises InputError for what validate refuses."""
    judge = Judge(row_rules(contract))
    by_rule: Counter[str] = Counter()
    bad, digests, places, own, labels = 0, [], [], [], []
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
        own.append(_own(contract, taken))
        labels.append(_labels(contract, taken, int(good.sum())))
        if contract.label is not None and len(class_rows):
            name, label = contract.label
            members, _ = label.members(taken[name], labels[-1])
            class_rows += np.bincount(members[members >= 0], minlength=len(class_rows))
    return Trial(
        look.looked,
        bad,
        by_rule,
        np.concatenate(digests),
        np.concatenate(places),
        None if contract.split is None else np.concatenate(own),
        contract.brings_val,
        np.concatenate(labels),
        class_rows,
    )


def _of(batch: RawBatch, contract: Contract) -> RawBatch:
    """Return the batch with the contract's columns only, as the reader would give them."""
    whole = batch.cells == len(batch.columns)
    columns = {name: batch.columns[name] for name in contract.columns}
    return replace(batch, columns=columns, cells=np.where(whole, len(contract.columns), -1))


def _places(contract: Contract, taken: dict[str, pa.Array], digests: np.ndarray) -> np.ndarray:
    """Return what the rows' split goes by; of persons in groups other digests, for those of a run are keyed."""
    return digests if contract.group is None else identity.group_digests(taken[contract.group])


def _own(contract: Contract, taken: dict[str, pa.Array]) -> np.ndarray:
    if contract.split is None:
        return np.empty(0, np.uint8)
    found = pc.index_in(taken[contract.split], pa.array(identity.SPLIT_NAMES))
    own: np.ndarray = found.to_numpy(zero_copy_only=False).astype(np.uint8)
    return own


def _labels(contract: Contract, taken: dict[str, pa.Array], rows: int) -> np.ndarray:
    if contract.label is None:
        return np.full(rows, -1, np.int32)
    name, label = contract.label
    return label.ids(taken[name])
