"""Where rows go that the whole table decides of: a split by time, near-duplicates put together or left out.

A row's home is the split that it has by itself: by its digest or its group's, by its time, or as the raw data says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graftline.values.identity import SPLIT_NAMES, TEST, TRAIN, UNLABELLED, VAL
from graftline.values.leakage import Columns, Measure, NearPairs, find_near, leaks

Action = Literal["stop", "quarantine", "together"]

NEAR, OF_TEST = "near_duplicate", "unlabelled_in_test"
"""The rules that the quarantine names for rows that are left out."""
LEFT_OUT = {NEAR: "no earlier row of another split is nearly equal", OF_TEST: "no row without a label belongs to test"}


@dataclass
class Placed:
    """Where every good row goes."""

    index: Columns
    """All rows that stay, in their splits."""
    left_out: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By row number: the rule, and the value that the quarantine shows."""
    pairs: NearPairs = field(default_factory=NearPairs)
    """All near pairs that were found; their splits are those before anything was done about them."""
    notes: list[str] = field(default_factory=list)
    """What was decided, for people."""

    def leave_out(self, lines: dict[int, tuple[str, str]]) -> None:
        """Take rows out of the index."""
        self.left_out |= lines
        gone = np.fromiter(lines, np.int64, len(lines))
        self.index = self.index.take(~np.isin(self.index.rows, gone))


def by_time(index: Columns, test_fraction: float, val_fraction: float) -> tuple[np.ndarray, int, int]:
    """Return the home of each row by its time, and the times from which on rows are in val and in test.

    Test are the latest `test_fraction` of the labelled rows, val those before; rows of one time stay together, in the
    later split. Of a task without labels all rows count. The boundaries are exact: 8 bytes a row are sorted.
    """
    assert index.times is not None
    labelled = index.splits != UNLABELLED
    counted = np.sort(index.times[labelled if labelled.any() else slice(None)])
    count = len(counted)
    test = counted[min(count - 1, count - round(count * test_fraction))]
    val = counted[min(count - 1, count - round(count * (test_fraction + val_fraction)))]
    homes = np.where(index.times >= test, TEST, np.where(index.times >= val, VAL, TRAIN)).astype(np.uint8)
    return homes, int(val), int(test)


def held_back(rows: np.ndarray, splits: np.ndarray, homes: np.ndarray) -> dict[int, tuple[str, str]]:
    """Return those of the rows that have no label and whose home is test: the pool must hold nothing of test."""
    return {int(row): (OF_TEST, "") for row in rows[(splits == UNLABELLED) & (homes == TEST)]}


def settle_near(placed: Placed, action: Action, measure: Measure, files: Sequence[Path]) -> None:
    """Leave near-duplicates out, or put them together, until the search finds none in two splits."""
    settle = _quarantine if action == "quarantine" else _put_together
    settle(placed, lambda index, apart: find_near(index, measure, files, apart))


_Search = Callable[[Columns, Callable[[Any, Any], Any] | None], NearPairs]


def _quarantine(placed: Placed, search: _Search) -> None:
    """Of each two near (or equal) rows in two splits, keep the labelled one, else the first."""
    while True:
        found = search(placed.index, None)
        lines = _later(placed.index, found)
        placed.pairs = placed.pairs.joined(found)
        placed.leave_out(lines)
        if not lines:
            break
    count = sum(rule == NEAR for rule, _ in placed.left_out.values())
    if count:
        placed.notes.append(
            f"{count} rows are left out: each is nearly equal to a row of another split, which stays: of two the "
            f"labelled one, else the first ({len(placed.pairs)} near pairs)"
        )


def _later(index: Columns, pairs: NearPairs) -> dict[int, tuple[str, str]]:
    """Return the rows to leave out, with what each is near to.

    Sets of rows that are equal and in one split are taken in order, labelled ones first, then by their first row. A set
    goes if it is near a set in another split that stays.
    """
    of_row, first = _sets(*index.features.T, index.splits)
    unlabelled = index.splits[first] == UNLABELLED
    turn = np.empty(len(first), np.int64)
    turn[np.lexsort((first, unlabelled))] = np.arange(len(first))
    earlier: dict[int, list[tuple[int, str]]] = defaultdict(list)

    def add(one: int, other: int, likeness: str) -> None:
        one, other = sorted((one, other), key=lambda number: int(turn[number]))
        earlier[other].append((one, likeness))

    places = of_row[np.searchsorted(index.rows, pairs.rows)]
    for (one, other), likeness in zip(places.tolist(), pairs.likeness, strict=True):
        add(one, other, f"{pairs.measure} {likeness:.4f}")
    for one, other in _equal_sets(index, first):
        add(one, other, "equal")
    gone: dict[int, str] = {}
    for one in sorted(earlier, key=lambda number: int(turn[number])):
        for other, likeness in sorted(earlier[one], key=lambda found: int(turn[found[0]])):
            if other not in gone:
                kept = first[other]
                gone[one] = f"row {index.rows[kept]} ({SPLIT_NAMES[index.splits[kept]]}, {likeness})"
                break
    rows = np.flatnonzero(np.isin(of_row, np.fromiter(gone, np.int64, len(gone))))
    return {int(index.rows[row]): (NEAR, gone[int(of_row[row])]) for row in rows}


def _equal_sets(index: Columns, first: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs of sets, by number, that are equal but for their splits, which leak."""
    same, _ = _sets(*index.features[first].T)
    order = np.argsort(same, kind="stable")
    for place in np.flatnonzero(same[order][1:] == same[order][:-1]):
        one = int(order[place])
        for other in map(int, order[place + 1 : place + len(SPLIT_NAMES)]):
            if same[other] == same[one] and leaks(index.splits[first[one]], index.splits[first[other]]):
                yield one, other


def _sets(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's set of rows with equal keys, and the position of each set's first row."""
    order = np.lexsort([np.arange(len(keys[0])), *keys])
    new = np.r_[True, np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)]
    of_row = np.empty(len(order), np.int64)
    of_row[order] = np.cumsum(new) - 1
    return of_row, order[new]


def _put_together(placed: Placed, search: _Search) -> None:
    """Give rows that are near each other, and those that these are near to, the home of the first of them."""
    index = placed.index
    assert index.homes is not None
    unlabelled, edges = index.splits == UNLABELLED, _bound(index)
    everywhere = True
    while True:
        label = _components(edges, len(index.rows))
        first = np.unique(label, return_index=True)[1][label]
        homes = index.homes[first]
        labelled = np.bincount(label, ~unlabelled)[label] > 0
        # A row without a label leaves in the end if it goes with a labelled one of test; else it is in the pool.
        leaves = unlabelled & labelled & (homes == TEST)
        splits = np.where(unlabelled & ~leaves, UNLABELLED, homes).astype(np.uint8)
        found = search(replace(index, splits=splits), _Differ(first) if everywhere else None)
        if not len(found):
            break
        places, everywhere = np.searchsorted(index.rows, found.rows), False
        edges = np.concatenate([edges, places])
        placed.pairs = placed.pairs.joined(replace(found, splits=index.splits[places]))
    placed.index = replace(index, homes=homes, splits=np.where(unlabelled, UNLABELLED, homes).astype(np.uint8))
    placed.leave_out(held_back(index.rows[labelled], index.splits[labelled], homes[labelled]))
    if len(placed.pairs):
        sizes = np.bincount(label)[np.unique(label[np.searchsorted(index.rows, placed.pairs.rows)])]
        placed.notes.append(
            f"{len(sizes)} sets of near-duplicates, {sizes.sum()} rows in all and {sizes.max()} in the largest, are in "
            f"one split each, that of their first row: {(homes != index.homes).sum()} rows were moved "
            f"({len(placed.pairs)} near pairs)"
        )


@dataclass(frozen=True)
class _Differ:
    """Which pairs of positions differ in something."""

    of: np.ndarray

    def __call__(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        differ: np.ndarray = self.of[one] != self.of[other]
        return differ


def _bound(index: Columns) -> np.ndarray:
    """Return (m, 2) positions of rows that are in one split whatever they are near to: equal, or of one group."""
    keys = [index.features.T, *([] if index.groups is None else [index.groups[None]])]
    edges = []
    for key in keys:
        of_row, first = _sets(*key)
        edges.append(np.stack([np.arange(len(of_row)), first[of_row]], axis=1))
    return np.concatenate(edges)


def _components(edges: np.ndarray, size: int) -> np.ndarray:
    """Return the number of each position's connected component, from 0 on, (size,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (size, size))
    label: np.ndarray = connected_components(graph, directed=False)[1]
    return label
