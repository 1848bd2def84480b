"""Find a row or a person in every dataset that the row index covers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from graftline.errors import InputError
from graftline.rows.blocklist import check_all
from graftline.rows.segments import (
    SPLITS,
    DamagedError,
    Kind,
    Segment,
    damaged,
    read_index,
    read_list,
    read_lists,
    read_shard,
    readers_of,
)
from graftline.rows.shards import DIGEST_BYTES, search
from graftline.rows.subjects import hash_subject, load_key
from graftline.store import MissingError, Store

_WAITS = (0.0, 0.05, 0.2)
"""Seconds before each try: an erasure replaces a segment's index shortly before the list that names it."""


@dataclass(frozen=True, order=True)
class RowHit:
    """One place of a row: the task and content digest of a dataset, the raw data's row number, the split."""

    task: str
    dataset: str
    row: int
    split: str


def find_row(store: Store, digest: bytes) -> list[RowHit]:
    """Return every place of the row with this sha256 (32 bytes), sorted. Raises InputError if the index is damaged."""
    return find(store, "rows", digest)


def find_subject(store: Store, subject: str) -> list[RowHit]:
    """Return every place of the rows of the person with this id, sorted. Raises InputError (no key, damaged index)."""
    key = load_key(create=False)
    check_all(store, key)
    return find(store, "subjects", hash_subject(subject, key))


def find(store: Store, kind: Kind, digest: bytes) -> list[RowHit]:
    """Return every place of a row's digest, or of a subject's keyed hash."""
    if len(digest) < DIGEST_BYTES:
        raise InputError("digest", f"{len(digest)} bytes", expected=f"at least {DIGEST_BYTES}")
    with ThreadPoolExecutor(readers_of(store)) as pool:
        for wait in _WAITS:  # segments may be merged, or rows erased from them, while they are read
            time.sleep(wait)
            segments = [(task, s) for task, found in read_lists(store, kind, pool).items() for s in found]
            try:
                found = pool.map(lambda of: _search(store, kind, of[0], of[1], digest[:DIGEST_BYTES]), segments)
                return sorted(hit for hits in found for hit in hits)
            except MissingError as error:
                last: InputError = damaged(store, error.key, "missing")
            except DamagedError as error:
                last = error
        raise last from None


def indexed(store: Store, kind: Kind, task: str) -> set[str]:
    """Return the content digests of the task's datasets that the index covers: of others it says nothing."""
    return {dataset for segment in read_list(store, kind, task)[0] for dataset in segment.datasets}


def _search(store: Store, kind: Kind, task: str, segment: Segment, digest: bytes) -> list[RowHit]:
    name = segment.layout.shard_of(digest)
    expected = read_index(store, kind, segment).get(name)
    if expected is None:
        return []
    data = read_shard(store, kind, segment, name, expected)
    return [
        RowHit(task, segment.datasets[of], row, SPLITS[split])
        for of, row, split in search(data, segment.layout, digest)
    ]
