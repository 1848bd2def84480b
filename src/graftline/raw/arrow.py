"""Arrow's own files: Feather, and files and streams of its IPC format.

https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from graftline.errors import InputError, brief
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.columnar import flat_names, raw_batches
from graftline.raw.faults import damaged
from graftline.raw.reader import Asked, Reader, Source, check_columns

_FILE, _OLD = b"ARROW1", b"FEA1"
_FILE_HEAD = 8
"""Bytes before the stream in a file: the magic word, padded."""
_END = b"\0\0\0\0"
"""What a stream ends with: a message of length 0."""


class Arrow(Reader):
    format: ClassVar[str] = "arrow"
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc")

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.suffix in self.suffixes

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        with _open_stream(path) as stream:
            return sum(batch.num_rows for batch in stream), True

    def schema(self, path: Path, source: Source) -> pa.Schema:
        with _open_stream(path) as stream:
            return stream.schema

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        with _open_stream(path) as stream:
            dropped = check_columns(path, flat_names(stream.schema, asked), asked)
            for batch in stream:
                batch.validate(full=True)  # Arrow does not check UTF-8 and offsets on reading
                for part in raw_batches(path, asked, batch, first_row, dropped):
                    yield part
                    first_row += part.rows


@contextmanager
def _open_stream(path: Path) -> Iterator[Any]:
    """Open the batches of a file, which is mapped: only what is compressed takes memory. Raises InputError."""
    try:
        with pa.memory_map(str(path)) as file:
            head = file.read(_FILE_HEAD)
            in_file = head.startswith(_FILE)
            if head.startswith(_OLD):
                raise InputError(path, "Feather of version 1", expected="version 2", fix="write it anew, with pyarrow")
            file.seek(max(0, file.size() - len(_FILE)))
            end = file.read()
            if not (end.endswith(_FILE) if in_file else end.endswith(_END)):
                raise pa.ArrowInvalid("its end is missing")
            start = _FILE_HEAD if in_file else 0
            file.seek(start)
            for message in _messages(file):
                _check_size(path, message)
            file.seek(start)
            yield pa.ipc.open_stream(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, brief(error), "Arrow file") from None


def _messages(file: Any) -> Iterator[Any]:
    reader = pa.ipc.MessageReader.open_stream(file)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _check_size(path: Path, message: Any) -> None:
    """Raise InputError for a batch that decompresses to more than MAX_BATCH bytes."""
    if message.type not in ("record batch", "dictionary") or message.body is None:
        return
    size = sum(_decompressed_sizes(message.metadata.to_pybytes(), message.body))
    if size > limits.MAX_BATCH:
        raise InputError(
            path,
            f"a batch of rows that decompresses to {size} bytes",
            expected=f"at most {limits.MAX_BATCH}",
            fix="write it anew with fewer rows a batch, such as by write_feather(..., chunksize=1000)",
        )


def _decompressed_sizes(metadata: bytes, body: Any) -> Iterator[int]:
    """Yield the size of each buffer of a batch that is compressed, by the word that it begins with.

    The metadata are a FlatBuffer (https://flatbuffers.dev/internals): tables of offsets, as Message.fbs lays them out.
    """

    def number(place: int, width: int = 4, *, signed: bool = False) -> int:
        if not 0 <= place <= len(metadata) - width:
            raise pa.ArrowInvalid("its metadata point outside")
        return int.from_bytes(metadata[place : place + width], "little", signed=signed)

    def field(table: int, index: int) -> int:
        """Return the place of a table's field, 0 if it has none."""
        fields = table - number(table, signed=True)
        entry = 4 + 2 * index
        offset = number(fields + entry, 2) if entry < number(fields, 2) else 0
        return table + offset if offset else 0

    def follow(place: int) -> int:
        return place + number(place)

    root = follow(0)
    batch = follow(field(root, 2))
    if number(field(root, 1), 1) == 2:  # a dictionary: the batch is in it
        batch = follow(field(batch, 1))
    if not field(batch, 3):  # no compression
        return
    buffers = follow(field(batch, 2))
    for index in range(number(buffers)):
        offset, length = (number(buffers + 4 + 16 * index + part, 8) for part in (0, 8))
        if length >= 8:
            yield max(0, int.from_bytes(body.slice(offset, 8).to_pybytes(), "little", signed=True))
