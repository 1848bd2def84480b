"""Good rows set aside in a file until it is known where each one goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.rows.subjects import HASH_BYTES
from graftline.values.contract import Contract

_ROW, _DIGEST, _SUBJECT = "row", "digest", "\0subject"  # RESERVED, or no name that a file can have
_ROWS, _BYTES = 4096, 64 << 20
"""In memory at once at most, about."""


@dataclass(frozen=True)
class Rows:
    """Good rows of one batch."""

    numbers: np.ndarray
    """(n,) int64, ascending."""
    columns: dict[str, pa.Array]
    """All that the contract names but the subject, in the output's types."""
    digests: np.ndarray
    """(n, 32) uint8."""
    subjects: pa.Array | None
    """Keyed hashes, if the contract names a subject."""

    def filter(self, mask: np.ndarray) -> Rows:
        if mask.all():
            return self
        kept = pa.array(mask)
        columns = {name: values.filter(kept) for name, values in self.columns.items()}
        subjects = None if self.subjects is None else self.subjects.filter(kept)
        return Rows(self.numbers[mask], columns, self.digests[mask], subjects)


class Held:
    """A Parquet file of rows; each group of it is one batch."""

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path, self._subject = path, contract.subject is not None
        self._names = [name for name in contract.columns if name != contract.subject]
        fields = [pa.field(name, contract.columns[name].arrow_type()) for name in self._names]
        more = [(_ROW, pa.int64()), (_DIGEST, pa.binary(32)), (_SUBJECT, pa.binary(HASH_BYTES))]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = self._bytes = 0
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(path, pa.schema([*fields, *more]), compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def add(self, rows: Rows) -> None:
        assert self._writer is not None
        count = len(rows.numbers)
        raw = pa.py_buffer(np.ascontiguousarray(rows.digests))
        digests = pa.Array.from_buffers(pa.binary(32), count, [None, raw])
        subjects = pa.nulls(count, pa.binary(HASH_BYTES)) if rows.subjects is None else rows.subjects
        arrays = [*(rows.columns[name] for name in self._names), pa.array(rows.numbers), digests, subjects]
        table = pa.table(arrays, schema=self._writer.schema)
        self._rows, self._bytes = self._rows + count, self._bytes + table.nbytes
        self._writer.write_table(table)

    def batches(self) -> Iterator[Rows]:
        """Yield all rows as they came; none can be added after that."""
        self.close()
        rows = max(1, min(_ROWS, _BYTES * self._rows // max(1, self._bytes)))
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, use_threads=False):
                digests = np.frombuffer(b"".join(batch.column(_DIGEST).to_pylist()), np.uint8).reshape(-1, 32)
                yield Rows(
                    batch.column(_ROW).to_numpy(),
                    {name: batch.column(name) for name in self._names},
                    digests,
                    batch.column(_SUBJECT) if self._subject else None,
                )

    def close(self) -> Path:
        """End the file and return it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return self.path


def values_at(files: Sequence[Path], column: str, rows: Sequence[int]) -> dict[int, Any]:
    """Return the column's value in each of some rows that the Parquet files hold, by row number."""
    found: dict[int, Any] = {}
    for path in files:
        if column not in pq.read_schema(path).names:
            continue
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(columns=[_ROW, column], use_threads=False):
                for place in np.flatnonzero(np.isin(batch.column(_ROW).to_numpy(), rows)).tolist():
                    found[batch.column(_ROW)[place].as_py()] = batch.column(column)[place].as_py()
    return found
