"""How the rows of two data sets differ, by the store's row index: digests only, so that no row is read.

A row whose digest is in one data set only was added or removed. Where a removed one stood in the same place as an
added one, between the same rows that both have, it was changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graftline.rows.segments import Segment, read_index, read_list, read_shard
from graftline.rows.shards import WHOLE

if TYPE_CHECKING:
    from graftline.store import Store

_HEX = "0123456789abcdef"


def compare_rows(store: Store, before: str, after: str) -> dict[str, int] | None:
    """Return how many rows were added, removed and changed, and moved to another split; None without an index of both.

    Args:
        store: with the row index.
        before: a dataset's content digest, hex.
        after: another's.

    Raises:
        InputError: the row index is damaged.
    """
    segments = _segments(store)
    if before not in segments or after not in segments:
        return None
    gone, new, moved = [], [], 0
    for digit in _HEX:  # a sixteenth at a time, so that 100 million rows need 250 MB
        a = _entries(store, segments[before], before, digit)
        b = _entries(store, segments[after], after, digit)
        only_a, only_b, resplit = _differ(a, b)
        gone.append(only_a)
        new.append(only_b)
        moved += resplit
    changed = _in_the_same_place(np.concatenate(gone), np.concatenate(new))
    removed, added = sum(map(len, gone)) - changed, sum(map(len, new)) - changed
    counts = {"rows added": added, "rows removed": removed, "rows changed": changed, "rows in another split": moved}
    return {how: count for how, count in counts.items() if count}


def _segments(store: Store) -> dict[str, Segment]:
    """Return the segment of the row index that covers each dataset."""
    tasks = [key.rpartition("/")[2].removesuffix(".json") for key in store.list("rows/tasks/")]
    return {
        dataset: segment
        for task in tasks
        for segment in read_list(store, "rows", task)[0]
        for dataset in segment.datasets
    }


def _entries(store: Store, segment: Segment, dataset: str, digit: str) -> np.ndarray:
    """Return (n, 3) uint64 of the rows whose digest starts with `digit`: the digest's halves, row * 4 + split."""
    parts = [np.empty((0, 3), np.uint64)]
    layout, number = segment.layout, segment.datasets.index(dataset)
    for name, data in _shards(store, segment, digit):
        raw = np.frombuffer(data, np.uint8).reshape(-1, layout.width)
        raw = raw[~(raw == 0xFF).all(axis=1)]
        if layout.several:
            raw = raw[raw[:, layout.kept] == number]
        digests = np.empty((len(raw), 16), np.uint8)
        digests[:, : layout.given] = np.frombuffer(bytes.fromhex(name[: 2 * layout.given]), np.uint8)
        digests[:, layout.given :] = raw[:, : layout.kept]
        values = np.ascontiguousarray(raw[:, -4:]).view("<u4")
        entries = np.hstack([digests.view(">u8").astype(np.uint64), values.astype(np.uint64)])
        parts.append(entries[entries[:, 0] >> np.uint64(60) == int(digit, 16)])
    return np.concatenate(parts)


def _shards(store: Store, segment: Segment, digit: str) -> Iterator[tuple[str, bytes]]:
    for name, expected in sorted(read_index(store, "rows", segment).items()):
        if name == WHOLE or name.startswith(digit):
            yield ("" if name == WHOLE else name), read_shard(store, "rows", segment, name, expected)


def _differ(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the entries' values of `a` only, of `b` only, and how many in both are in another split."""
    rows = np.concatenate([a, b])
    side = np.repeat([0, 1], [len(a), len(b)])
    order = np.lexsort((side, rows[:, 1], rows[:, 0]))
    rows, side = rows[order], side[order]
    follows = np.append((rows[1:, :2] == rows[:-1, :2]).all(axis=1) & (side[1:] != side[:-1]), False)
    in_both = follows | np.append(False, follows[:-1])[: len(follows)]
    pairs = np.flatnonzero(follows)
    resplit = int(((rows[pairs, 2] & np.uint64(3)) != (rows[pairs + 1, 2] & np.uint64(3))).sum())
    values = rows[:, 2]
    return values[~in_both & (side == 0)], values[~in_both & (side == 1)], resplit


def _in_the_same_place(gone: np.ndarray, new: np.ndarray) -> int:
    """Return how many of the rows that are gone have a new one in their place.

    A row's place is the number of rows before it that are in both: its row number less those before it that are not.
    """

    def places(values: np.ndarray) -> Counter[int]:
        numbers = np.sort(values >> np.uint64(2)).astype(np.int64)
        return Counter((numbers - np.arange(len(numbers))).tolist())

    return sum((places(gone) & places(new)).values())
