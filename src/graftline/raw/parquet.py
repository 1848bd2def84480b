"""Parquet: https://parquet.apache.org/docs/file-format/"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import InputError, brief
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.columnar import flat_names, raw_batches
from graftline.raw.faults import damaged
from graftline.raw.lines import OTHER_FORMATS
from graftline.raw.reader import Asked, Reader, Source, check_columns

INDEX_BYTES = 4
"""Most bytes of an index into a dictionary."""
PAGE_BYTES = 1 << 12
"""What heads of pages may take beside."""
LARGE = 8
"""How many times too large a batch may get at worst, if every value is as long as a whole dictionary."""


class Parquet(Reader):
    format: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix == ".parquet"

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        with open_parquet(path) as file:
            return int(file.metadata.num_rows), True

    def schema(self, path: Path, source: Source) -> pa.Schema:
        with open_parquet(path) as file:
            return file.schema_arrow

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        with open_parquet(path) as file:
            dropped = check_columns(path, flat_names(file.schema_arrow, asked), asked)
            if file.metadata.num_rows == 0:
                return
            found = file.iter_batches(batch_size=rows_a_batch(file), columns=asked.names, use_threads=False)
            while True:
                try:
                    batch = next(found, None)
                    if batch is None:
                        return
                    batch.validate(full=True)  # Arrow does not check UTF-8 and offsets on reading
                except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                    reason = f"near row {first_row} of the raw data: {brief(error)}"
                    raise damaged(path, reason, "Parquet file") from None
                for part in raw_batches(path, asked, batch, first_row, dropped):
                    yield part
                    first_row += part.rows


def open_parquet(path: Path) -> pq.ParquetFile:
    """Return the file, opened so that `rows_a_batch` of its rows at a time take bounded memory. Raises InputError."""
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
        metadata = pq.read_metadata(path)
        with path.open("rb") as file:
            repeating = _repeating(file, metadata)
        # Column chunks are read through a small buffer: one large row group must not be in memory whole.
        return pq.ParquetFile(
            path,
            metadata=metadata,
            read_dictionary=repeating,
            pre_buffer=False,
            buffer_size=1 << 20,
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, brief(error), "Parquet file") from None


def _repeating(file: IO[bytes], metadata: pq.FileMetaData) -> list[str]:
    """Return the columns of text that are stored as a large dictionary and indices alone, somewhere in the file.

    Decoded at once, a file of 47 KB took 50 GB: a value of 1 MB, 50,000 times. Read as it is stored, such a column is
    decoded a few rows at a time; of columns with other values that takes 3 to 20 times as long.
    """
    found = set()
    for group in range(metadata.num_row_groups):
        for leaf in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(leaf)
            if chunk.physical_type != "BYTE_ARRAY" or not chunk.has_dictionary_page or "." in chunk.path_in_schema:
                continue
            size = _dictionary_size(file, chunk.dictionary_page_offset)
            only = chunk.total_uncompressed_size - size < INDEX_BYTES * chunk.num_values + PAGE_BYTES
            if only and size * min(chunk.num_values, limits.MAX_ROWS) > LARGE * limits.BATCH_BYTES:
                found.add(chunk.path_in_schema)
    return sorted(found)


def _dictionary_size(file: IO[bytes], offset: int) -> int:
    """Return the size of a dictionary once decompressed, as the head of its page says it.

    A struct of Thrift's compact protocol: the type of the page and this size are its first fields, each after a byte,
    in groups of 7 bits, the lowest first, the last bit for the sign.
    """
    file.seek(offset)
    head = iter(file.read(32))
    number = 0
    for _ in range(2):
        next(head, 0)
        number = shift = 0
        for byte in head:
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
    return number >> 1


def rows_a_batch(file: pq.ParquetFile) -> int:
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
