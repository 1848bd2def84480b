"""What the formats of text share: rows of strings under a header as batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.reader import Asked, check_columns


def check_header(where: str, header: Sequence[str], asked: Asked) -> tuple[str, ...]:
    """Return the columns that are dropped. Raises InputError unless the header names those that are asked for."""
    if asked.others == "refuse" and "" in header and "" not in asked.names:
        place = header.index("") + 1
        index = "a first column without a name: an index, as pandas writes it"
        raise InputError(
            where,
            index if place == 1 else f"column {place} has no name",
            expected="the columns " + ", ".join(asked.names),
            fix="say `others: drop` in the contract, or name the column there by `name: ''`, or write the file "
            "without it, as by to_csv(..., index=False)",
        )
    return check_columns(where, header, asked)


def text_batches(
    path: Path, header: Sequence[str], rows: Iterator[list[str]], asked: Asked, first_row: int, dropped: tuple[str, ...]
) -> Iterator[RawBatch]:
    """Yield the rows in batches of about TEXT_BYTES; of those of another width than the header only that is kept."""
    order = [header.index(name) for name in asked.names]
    extra = len(header) - len(order)
    whole: list[list[str] | None] = []
    cells: list[int] = []
    size = 0

    def batch() -> RawBatch:
        columns = {
            name: pa.array([row[i] or None if row else None for row in whole], pa.string())
            for name, i in zip(asked.columns, order, strict=True)
        }
        return RawBatch(path, first_row, columns, True, np.array(cells, np.int64) - extra, dropped)

    for row in rows:
        whole.append(row if len(row) == len(header) else None)
        cells.append(len(row))
        size += sum(map(len, row))
        if size > limits.TEXT_BYTES or len(whole) == limits.MAX_ROWS:
            yield batch()
            first_row += len(whole)
            whole, cells, size = [], [], 0
    if whole:
        yield batch()
