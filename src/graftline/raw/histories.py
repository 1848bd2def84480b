"""Interactions, a row each (who, what, perhaps when), as histories, a row a user: where a contract names `source.user`.

    user  item  time                user  items
    ann   tea   2024-05-01          ann   [tea, rye]
    bob   rye   2024-05-02    ->    bob   [rye]
    ann   rye   2024-05-03

Users come in the order in which they are first named; their items in that of `source.time`, else as they stand. All
interactions are in memory at once, some 30 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from graftline.errors import InputError
from graftline.raw.batches import LeftOut, RawBatch
from graftline.raw.limits import MAX_ROWS
from graftline.raw.reader import Asked

LACKS = "an interaction that lacks a value"


def gathered(read: Callable[[Asked], Iterator[RawBatch]], asked: Asked) -> Iterator[RawBatch]:
    """Yield a row a user of what `read` yields of interactions.

    The column `source.user` has one value a row and `source.time` the last one; all others have a list.

    Raises:
        InputError: as `read` does, a row has too few or too many cells, or a time is neither a number nor as ISO 8601
            writes it.
    """
    source = asked.source
    assert source.user is not None
    names = list(dict.fromkeys([source.user, *([source.time] if source.time else []), *asked.names]))
    plain = source.model_copy(update={"user": None, "time": None})
    batches = list(read(Asked(tuple(names), plain, asked.others)))
    _check_cells(batches, len(names))
    table = _joined(batches, names)
    order, ends = _order(table, batches[0].file, source.user, source.time)
    table = table.take(pa.array(order))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    columns = {
        name: _column(table[found].combine_chunks(), found, (source.user, source.time), starts, ends)
        for name, found in zip(asked.columns, asked.names, strict=True)
    }
    left_out = (*(one for batch in batches for one in batch.left_out), *_lacking(batches, names))
    dropped = tuple(dict.fromkeys(name for batch in batches for name in batch.dropped))
    cells = np.full(len(ends), len(columns), np.int64)
    whole = RawBatch(batches[0].file, 0, columns, batches[0].is_text, cells, dropped, left_out=left_out)
    yield from whole.parts(MAX_ROWS)


def _check_cells(batches: Sequence[RawBatch], expected: int) -> None:
    """Raise InputError for rows with a wrong number of cells: of a damaged file it is not known whose they are."""
    wrong = [(batch, place) for batch in batches for place in np.flatnonzero(batch.cells != expected).tolist()]
    if wrong:
        batch, place = wrong[0]
        raise InputError(
            f"{batch.file}: row {batch.first_row + place}",
            f"too few or too many cells, as in {len(wrong):,} rows of all (counted from 0)",
            expected="a cell for each column", fix="correct the file, or source.delimiter and source.quote",
        )  # fmt: skip


def _joined(batches: Sequence[RawBatch], names: list[str]) -> pa.Table:
    """Return all interactions that lack nothing."""
    tables = [pa.table(batch.columns).select(names).drop_null() for batch in batches]
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        found = f"values of several types ({error})"
        raise InputError(batches[0].file, found, expected="values of one type", fix="correct the files") from None


def _lacking(batches: Sequence[RawBatch], names: list[str]) -> Iterator[LeftOut]:
    for batch in batches:
        lacks = np.zeros(batch.rows, bool)
        for name in names:
            lacks |= batch.columns[name].is_null().to_numpy(zero_copy_only=False)
        yield from (LeftOut(f"row {batch.first_row + place}", LACKS) for place in np.flatnonzero(lacks).tolist())


def _order(table: pa.Table, path: Path, user: str, time: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows' order, user by user, and where each user ends."""
    if not table.num_rows:
        raise InputError(path, "no interaction that lacks nothing", expected=f"rows with '{user}' and items")
    who = table[user].combine_chunks().dictionary_encode().indices.to_numpy()  # numbered as they first come
    when = np.zeros(table.num_rows) if time is None else _times(table[time].combine_chunks(), path, time)
    order = np.lexsort((np.arange(len(who)), when, who))
    return order, np.cumsum(np.bincount(who))


def _times(array: pa.Array, path: Path, name: str) -> np.ndarray:
    """Return numbers that are in the order of times."""
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us", "UTC"), pa.timestamp("us")):
        try:
            return np.asarray(array.cast(kind).to_numpy(zero_copy_only=False))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    raise InputError(
        f"{path}: column '{name}'", f"no times, such as {str(array[0])[:40]!r}",
        expected="numbers, or times as ISO 8601 writes them", fix="convert the column, or leave source.time out",
    )  # fmt: skip


def _column(
    array: pa.Array, found: str, single: tuple[str | None, ...], starts: np.ndarray, ends: np.ndarray
) -> pa.Array:
    """Return the last value of each user, or all of them as a list."""
    if found in single:
        return array.take(pa.array(ends - 1))
    offsets = pa.array(np.append(starts, ends[-1]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, array)
