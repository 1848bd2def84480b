"""Parquet: https://parquet.apache.org/docs/file-format/"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.lines import OTHER_FORMATS
from graftline.raw.nested import flat_names, pick
from graftline.raw.reader import Asked, Source, check_columns, first_line


class Parquet:
    format: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix == ".parquet"

    def guess(self, path: Path) -> Source:
        return Source()

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        with _open_parquet(path) as file:
            return int(file.metadata.num_rows), True

    def schema(self, path: Path, source: Source) -> pa.Schema:
        with _open_parquet(path) as file:
            return file.schema_arrow

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        columns = list(asked.columns)
        with _open_parquet(path) as file:
            dropped = check_columns(path, flat_names(file.schema_arrow, asked), asked)
            if file.metadata.num_rows == 0:
                return
            found = file.iter_batches(batch_size=_rows_a_batch(file), columns=asked.names, use_threads=False)
            while True:
                try:
                    batch = next(found, None)
                    if batch is None:
                        return
                    batch.validate(full=True)  # Arrow does not check UTF-8 and offsets on reading
                except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                    raise _damaged(path, f"near row {first_row} of the raw data: {first_line(error)}") from None
                if batch.num_rows == 0:
                    continue
                arrays = {name: _decoded(pick(batch, asked.found_as.get(name, name))) for name in columns}
                for name, array in arrays.items():
                    _check_sizes(path, name, array, first_row)
                yield RawBatch(path, first_row, arrays, False, np.full(batch.num_rows, len(columns), np.int64), dropped)
                first_row += batch.num_rows


def _open_parquet(path: Path) -> pq.ParquetFile:
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] != b"PAR1":
        kind = OTHER_FORMATS.get(head[:4]) or OTHER_FORMATS.get(head[:2])
        if kind is None and b"\0" not in head and (b"," in head or b"\n" in head):
            kind = "probably CSV"
        raise InputError(
            path,
            f"starts with {head[:12]!r}, {kind or 'not a Parquet file'}",
            expected="a Parquet file (it starts with PAR1)",
            fix="give it the right ending, or convert it",
        )
    try:
        # Column chunks are read through a small buffer: one large row group must not be in memory whole.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, first_line(error)) from None


def _damaged(path: Path, reason: str) -> InputError:
    size = path.stat().st_size
    return InputError(
        path,
        f"truncated or damaged ({size} bytes; {reason})",
        expected="a whole Parquet file",
        fix="fetch it again, such as with `dvc pull --force`",
    )


def _rows_a_batch(file: pq.ParquetFile) -> int:
    """Return how many rows decode to about BATCH_BYTES: 8 bytes a number (1 of 8 bits), text as stored."""
    metadata = file.metadata
    total = 0
    for group in range(metadata.num_row_groups):
        for leaf in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(leaf)
            if chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
                total += chunk.total_uncompressed_size
            else:
                width = 1 if "bitWidth=8" in str(metadata.schema.column(leaf).logical_type) else 8
                total += chunk.num_values * width
    width = max(1, int(total) // int(metadata.num_rows))
    return max(1, min(limits.MAX_ROWS, limits.BATCH_BYTES // width))


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _check_sizes(path: Path, name: str, array: pa.Array, first_row: int) -> None:
    kind = array.type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
    ):
        return
    lengths = pc.binary_length(array) if not hasattr(array, "offsets") else pc.list_value_length(array)
    longest = pc.max(lengths).as_py()
    if longest is not None and longest > limits.MAX_LINE:
        row = first_row + pc.index(lengths, longest).as_py()
        raise InputError(
            path,
            f"row {row}: column '{name}' holds a value of length {longest}",
            expected=f"at most {limits.MAX_LINE}",
            fix="remove the row",
        )
