"""Add a dataset to the row index, and merge a task's small segments into larger ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.releases.layout import check_task
from graftline.rows.finding import indexed
from graftline.rows.segments import (
    SPLITS,
    Kind,
    Segment,
    change_list,
    damaged,
    delete_segment,
    delete_superseded,
    index_key,
    merged_name,
    read_list,
    read_shard,
    read_signed,
    store_segment,
)
from graftline.rows.shards import DIGEST_BYTES, Sorter
from graftline.store import MissingError, Store

MERGED = 16
"""How many segments of one level become one of the next; a segment has at most 256 datasets: a byte says which."""
MERGED_ROWS = 50_000_000
"""Segments with more entries together stay apart: publish should not spend minutes on them."""
_BATCH = 500_000


def build(rows_parquet: Path, store: Store, task: str, dataset: str) -> None:
    """Add a dataset's rows, and its subjects if it has any, to the store's index. Doing it again changes nothing.

    Memory is bounded; the temporary folder holds 21 bytes a row meanwhile.

    Args:
        rows_parquet: the dataset's rows.parquet.
        dataset: the dataset's content digest, hex.

    Raises:
        InputError: the file is not as validate writes it, or other bytes are stored where the index should be.
    """
    check_task(task)
    try:
        columns = pq.read_schema(rows_parquet).names
        for kind, column in (("rows", "digest"), ("subjects", "subject")):
            if column in columns and dataset not in indexed(store, kind, task):  # type: ignore[arg-type]
                _build(rows_parquet, store, kind, column, task, dataset)  # type: ignore[arg-type]
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            rows_parquet, f"not a row index ({error})", fix=f"make the dataset anew: graftline run {task} --force"
        ) from None


def _build(rows_parquet: Path, store: Store, kind: Kind, column: str, task: str, dataset: str) -> None:
    with TemporaryDirectory(prefix="graftline-rows-") as folder:
        sorter = Sorter(Path(folder))
        for digests, rows, splits in _batches(rows_parquet, column):
            sorter.add(digests, rows, splits)
        segment = store_segment(store, kind, task, dataset, (dataset,), sorter)
    now = change_list(store, kind, task, lambda known: known if _covered(known, dataset) else [*known, segment])
    if all(other.name != segment.name for other in now):  # another publisher has merged the same already
        delete_segment(store, kind, segment.name)
    elif not store.list(index_key(kind, segment.name)):
        change_list(store, kind, task, lambda known: [other for other in known if other.name != segment.name])
        raise InputError(
            f"{store.url}/{index_key(kind, segment.name)}",
            "an erasure has removed it meanwhile",
            fix=f"make the dataset anew: graftline run {task} --force",
        )
    _merge(store, kind, task)


def _batches(path: Path, column: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield digests, (n, 16) uint8, row numbers and split numbers, of the rows with a digest."""
    names = pa.array(SPLITS)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(_BATCH, columns=["row", column, "split"], use_threads=False):
            kept = batch.filter(batch.column(column).is_valid())
            values = kept.column(column)
            flat = np.frombuffer(b"".join(values.to_pylist()), np.uint8)
            splits = pc.index_in(kept.column("split"), names)
            if splits.null_count:
                raise InputError(path, "a split of another name", expected=", ".join(SPLITS))
            yield (
                flat.reshape(len(values), -1)[:, :DIGEST_BYTES] if len(values) else flat.reshape(0, DIGEST_BYTES),
                kept.column("row").to_numpy(),
                splits.to_numpy().astype(np.uint32),
            )


def _covered(segments: Sequence[Segment], dataset: str) -> bool:
    return any(dataset in segment.datasets for segment in segments)


def _merge(store: Store, kind: Kind, task: str) -> None:
    """Make one segment of MERGED segments of a level, while there are so many; it may give up."""
    if _to_merge(read_list(store, kind, task)[0]):
        delete_superseded(store, kind, task)
    while chosen := _to_merge(read_list(store, kind, task)[0]):
        try:
            merged = _merged(store, kind, task, chosen)
        except MissingError:  # another publisher was quicker
            return
        except InputError as error:
            print(f"warning: segments of the row index stay apart: {error}", file=sys.stderr)
            return
        if not _swap(store, kind, task, chosen, merged):
            return
        for segment in chosen:
            delete_segment(store, kind, segment.name)


def _merged(store: Store, kind: Kind, task: str, chosen: Sequence[Segment]) -> Segment:
    """Store the segment that the chosen ones make; each must be signed, for the new one will be."""
    datasets = tuple(dataset for segment in chosen for dataset in segment.datasets)
    made_of = [segment.index for segment in chosen]
    with TemporaryDirectory(prefix="graftline-rows-") as folder:
        sorter, first = Sorter(Path(folder)), 0
        for segment in chosen:
            data = store.get(index_key(kind, segment.name)).data
            if sha256_bytes(data) != segment.index:
                raise damaged(store, index_key(kind, segment.name), "changed meanwhile", expected=segment.index)
            for name, sha256 in sorted(read_signed(store, kind, task, segment, data)["shards"].items()):
                shard = read_shard(store, kind, segment, name, sha256)
                sorter.add_shard(name, shard, segment.layout, first)
            first += len(segment.datasets)
        return store_segment(store, kind, task, merged_name(datasets, made_of), datasets, sorter, made_of)


def _swap(store: Store, kind: Kind, task: str, chosen: Sequence[Segment], merged: Segment) -> bool:
    """Put the merged segment into the list in place of the chosen ones; delete it if that can never be.

    An erasure replaces a segment's index before the list: so both must be as they were when the rows were read.
    """
    gone = set(chosen)

    def change(known: list[Segment]) -> list[Segment]:
        if not gone <= set(known) or not _unchanged(store, kind, chosen):
            return known
        return [segment for segment in known if segment not in gone] + [merged]

    now = change_list(store, kind, task, change)
    if any(segment.name == merged.name for segment in now):
        return True
    if not gone <= set(now):  # else another publisher may be about to list the same
        delete_segment(store, kind, merged.name)
    return False


def _unchanged(store: Store, kind: Kind, segments: Sequence[Segment]) -> bool:
    try:
        return all(sha256_bytes(store.get(index_key(kind, s.name)).data) == s.index for s in segments)
    except MissingError:
        return False


def _to_merge(segments: Sequence[Segment]) -> list[Segment]:
    for level in (1, MERGED):
        same = [segment for segment in segments if len(segment.datasets) == level][:MERGED]
        if len(same) == MERGED and sum(segment.rows for segment in same) <= MERGED_ROWS:
            return same
    return []
