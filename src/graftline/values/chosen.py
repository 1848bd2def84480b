"""Values of some rows out of a dataset's Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def values_of(
    files: Sequence[Path], column: str, rows: np.ndarray, at_once: int = 8192
) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """Yield a column's values in `rows` (ascending), and their places among these; of so many rows read at once."""
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=at_once, columns=["row", column], use_threads=False):
                found = batch.column("row").to_numpy()
                place = np.minimum(np.searchsorted(rows, found), len(rows) - 1)
                wanted = rows[place] == found
                if wanted.any():
                    yield place[wanted], batch.column(column).filter(pa.array(wanted))
