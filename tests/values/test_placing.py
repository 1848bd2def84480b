"""Near rows are put together, or found, also where a bucket holds more rows than each is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from graftline.values import leakage, placing
from graftline.values.identity import TEST, TRAIN, UNLABELLED

FILLERS = 3 * leakage.WINDOW


class Twins:
    """A `leakage.Measure` by which two rows are near, and no others."""

    name: ClassVar[str] = "likeness"
    minimum: ClassVar[float] = 0.5
    max_distance: ClassVar[int] = 0

    def __init__(self, *rows: int) -> None:
        self.rows = set(rows)

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.zeros(len(first), np.int64)

    def pairs_at_once(self, files: Sequence[Path]) -> int:
        return 1 << 20

    def likeness(self, pairs: np.ndarray, index: leakage.Columns, files: Sequence[Path]) -> np.ndarray:
        return np.array([float(set(pair) == self.rows) for pair in index.rows[pairs].tolist()])


def one_bucket(splits: list[int], homes: list[int]) -> leakage.Columns:
    """Return rows that share a band, in the order of their numbers."""
    rows = np.arange(len(splits))
    return leakage.Columns(
        rows=rows,
        splits=np.array(splits, np.uint8),
        features=np.stack([rows, rows], axis=1).astype(np.uint64),
        labels=np.where(np.array(splits) == UNLABELLED, -1, 0).astype(np.int32),
        signatures=np.stack([np.ones(len(rows), np.uint32), rows.astype(np.uint32) + 1], axis=1),
        homes=np.array(homes, np.uint8),
    )


@pytest.mark.parametrize("home", [TRAIN, TEST])
@pytest.mark.parametrize("last", [True, False])
def test_the_twin_of_a_test_row_is_in_no_pool_however_many_rows_stand_between(home: int, last: bool) -> None:
    splits = [TEST, *[UNLABELLED] * FILLERS, UNLABELLED]
    homes = [TEST, *[TRAIN] * FILLERS, home]
    if last:
        splits, homes = splits[::-1], homes[::-1]
    test, twin = (len(splits) - 1, 0) if last else (0, len(splits) - 1)
    placed = placing.Placed(one_bucket(splits, homes))
    placing.settle_near(placed, "together", Twins(test, twin), [])
    of = dict(zip(placed.index.rows.tolist(), placed.index.splits.tolist(), strict=True))
    assert leakage.leaks(np.uint8(of.get(twin, TEST)), np.uint8(of[test])) == 0
    assert len(of) >= FILLERS + 1, "the others stay"
    assert len(placed.pairs) == 1


def test_rows_of_one_split_hide_no_leak_behind_them() -> None:
    splits = [TEST, *[TRAIN] * FILLERS, TRAIN]
    index = one_bucket(splits, splits)
    found = leakage.find_near(index, Twins(0, FILLERS + 1), [])
    assert found.rows.tolist() == [[0, FILLERS + 1]]
