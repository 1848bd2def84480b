"""The dataset's Parquet files, written as the rows come, in memory of a fixed size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.rows.subjects import HASH_BYTES
from graftline.values.contract import Contract
from graftline.values.identity import SPLIT_NAMES, TEST, UNLABELLED

GROUP_BYTES = 4 << 20
"""Size of a row group in memory."""


class _File:
    """One Parquet file; rows wait until they fill a row group: many small ones would be slow to read."""

    def __init__(self, path: Path, schema: pa.Schema, dictionary: list[str]) -> None:
        self.rows = 0
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=dictionary, write_page_checksum=True
        )
        self._waiting: list[pa.Table] = []
        self._bytes = 0

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self._waiting.append(table)
        self._bytes += table.nbytes
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting, self._bytes = [], 0


class Outputs:
    """All files of the dataset folder that hold rows."""

    def __init__(self, folder: Path, contract: Contract, in_file: Collection[str] = ()) -> None:
        """Begin the files; of the columns `in_file`, whose pixels lie in a file of their own, rows get their places."""
        self._in_file = in_file
        self._label = None if contract.label is None else contract.label[0]
        kept = [name for name in contract.columns if name not in (contract.split, contract.subject)]
        fields = [pa.field("row", pa.int64())]
        fields += [
            pa.field(name, pa.int64() if name in in_file else contract.columns[name].arrow_type()) for name in kept
        ]
        self._labelled = pa.schema(fields)
        self._pool = pa.schema([entry for entry in fields if entry.name != self._label])
        # Documents hardly repeat: a dictionary of them would only be built and thrown away.
        text = [
            entry.name for entry in fields if pa.types.is_string(entry.type) and entry.name not in contract.features
        ]
        self.splits = [
            _File(folder / f"{name}.parquet", self._pool if name == SPLIT_NAMES[UNLABELLED] else self._labelled, text)
            for name in SPLIT_NAMES
        ]
        self.quarantine = _File(
            folder / "quarantine.parquet",
            pa.schema([("row", pa.int64()), ("rule", pa.string()), ("value", pa.string())]),
            ["rule"],
        )
        index = [("row", pa.int64()), ("digest", pa.binary(32)), ("split", pa.string())]
        if contract.subject is not None:
            index.append(("subject", pa.binary(HASH_BYTES)))
        self.rows = _File(folder / "rows.parquet", pa.schema(index), ["split"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self.splits, self.quarantine, self.rows):
            file.close()

    def add_rows(
        self,
        rows: np.ndarray,
        columns: dict[str, pa.Array],
        digests: np.ndarray,
        splits: np.ndarray,
        subjects: pa.Array | None,
    ) -> None:
        """Write good rows: to their splits, to the pool unless in test, and to the row index."""
        numbers = pa.array(rows, pa.int64())
        stored = columns | dict.fromkeys(self._in_file, numbers)
        table = pa.table([numbers] + [stored[name] for name in self._labelled.names[1:]], schema=self._labelled)
        pool = table if self._label is None else table.drop_columns([self._label])
        for split, file in enumerate(self.splits):
            mask = splits != TEST if split == UNLABELLED else splits == split
            if mask.any():
                file.add((pool if split == UNLABELLED else table).filter(pa.array(mask)))
        raw = pa.py_buffer(np.ascontiguousarray(digests))
        digest = pa.Array.from_buffers(pa.binary(32), len(rows), [None, raw])
        names = pa.array(np.array(SPLIT_NAMES, object)[splits], pa.string())
        index = {"row": numbers, "digest": digest, "split": names}
        self.rows.add(pa.table(index | ({} if subjects is None else {"subject": subjects})))

    def add_failures(self, failures: Sequence[tuple[int, str, str]]) -> None:
        """Write (row, rule, value), a line each."""
        columns: list[tuple[Any, ...]] = list(zip(*failures, strict=True)) or [(), (), ()]
        kinds = (pa.int64(), pa.string(), pa.string())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        if failures:
            self.quarantine.add(pa.table(arrays, names=["row", "rule", "value"]))
