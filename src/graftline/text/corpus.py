"""Large corpora: shards of Parquet or JSONL, on a disk or in S3, read a few documents at a time.

A shard is one file. In Parquet, a document is a row's string (or its list of words, joined by spaces); in JSONL, a
line's string under the column's name. Rows are numbered from 0 in each shard, and row 0 of a JSONL shard is line 1.
Memory does not grow with a shard: only a batch of documents is held. An object in S3 is fetched in ranges into an
unnamed temporary file and hashed on the way, so that its sha256 is that of the bytes which were read.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.digests import sha256_file
from graftline.errors import InputError, brief, nearest
from graftline.raw.limits import MAX_LINE
from graftline.store.objects import Object, fetch, list_objects

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
BATCH_CHARACTERS = 1 << 16
"""Characters of a batch of documents: few enough to stay in a processor's cache once encoded."""
BATCH_ROWS = 1000
ARROW_BYTES = 4 << 20
"""Aimed size of the rows that are decoded from Parquet at once."""


@dataclass(frozen=True)
class Shard:
    """One file of a corpus."""

    url: str
    """Its path, or `s3://bucket/key`."""
    name: str
    """Its path relative to the corpus: with the content, what a shard is known by."""
    size: int
    """Bytes."""
    sha256: str | None
    """In hex; None for an object in S3 that was not read yet."""
    etag: str | None = None
    """What S3 calls this version of the object; None for a file."""


@dataclass(frozen=True)
class OpenShard:
    """A shard that is being read."""

    shard: Shard
    """With its sha256."""
    file: IO[bytes]

    def documents(self, column: str) -> Iterator[list[str]]:
        """Yield the documents in batches; see `read_documents`."""
        self.file.seek(0)
        read = _parquet_documents if self.shard.name.endswith(".parquet") else _line_documents
        return read(self, column)


def list_shards(where: str | Path) -> list[Shard]:
    """Return the shards of a corpus, sorted by name: a file, a folder, or `s3://bucket/prefix`.

    Names that start with `.` or `_` are skipped. Files are hashed; of objects only the list is fetched.

    Raises:
        InputError: there is no shard, or something else lies between the shards, or S3 refuses.
    """
    url = str(where)
    shards = _list_s3(url) if url.startswith("s3://") else _list_folder(Path(url))
    if not shards:
        raise InputError(url, "no shards", expected="files ending in " + ", ".join(SUFFIXES))
    for shard in shards:
        if not shard.name.endswith(SUFFIXES):
            raise InputError(
                shard.url,
                "unknown file type",
                expected=" or ".join(SUFFIXES),
                fix="convert it, or move it out of the corpus",
            )
        if shard.size == 0:
            raise InputError(shard.url, "an empty file (0 bytes)", fix="fetch it again or delete it")
    return shards


def read_documents(shard: Shard, column: str) -> Iterator[list[str]]:
    """Yield the documents of `shard` in the order of its rows, about BATCH_CHARACTERS or BATCH_ROWS at a time.

    A missing value and an empty line are empty documents, so that a document's number is its row.

    Raises:
        InputError: the shard is damaged, lacks the column, or holds a row that is no text or longer than MAX_LINE;
            it names the shard and the row or line.
    """
    with open_shard(shard) as opened:
        yield from opened.documents(column)


def iterate_documents(shards: Sequence[Shard], column: str) -> Iterator[str]:
    """Yield the documents of all shards one by one, such as to train a tokenizer on. Raises as `read_documents`."""
    for shard in shards:
        for documents in read_documents(shard, column):
            yield from documents


@contextmanager
def open_shard(shard: Shard) -> Iterator[OpenShard]:
    """Open a file, or fetch an object; the shard given then has its sha256.

    Raises:
        InputError: it is gone, or S3 refuses, or the object changed since it was listed.
        GraftlineError: S3 cannot be reached after the retries.
    """
    if shard.etag is None:
        with _open_file(shard) as file:
            yield OpenShard(shard, file)
    else:
        with tempfile.TemporaryFile(prefix="graftline-shard-") as copy:
            digest = fetch(Object(shard.url, shard.name, shard.size, shard.etag), copy)
            yield OpenShard(replace(shard, sha256=digest), copy)


def _open_file(shard: Shard) -> IO[bytes]:
    try:
        return Path(shard.url).open("rb")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(shard.url, f"cannot be read: {reason}", fix="start again") from None


# Where shards lie


def _list_folder(where: Path) -> list[Shard]:
    if not where.exists():
        raise InputError(where, "no such file or folder", fix="correct the path of the corpus")
    files = [where] if where.is_file() else sorted(_visible(where), key=lambda path: path.name)
    for path in files:
        if not path.is_file():
            raise InputError(path, "not a regular file", expected="shards only", fix="move it away")
    return [Shard(str(path), path.name, path.stat().st_size, sha256_file(path)) for path in files]


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith((".", "_")))


def _list_s3(url: str) -> list[Shard]:
    return [
        Shard(found.url, found.name, found.size, None, found.etag)
        for found in list_objects(url, "corpus")
        if not found.name.rpartition("/")[2].startswith((".", "_"))
    ]


# JSONL


def _line_documents(opened: OpenShard, column: str) -> Iterator[list[str]]:
    where = opened.shard.url
    documents: list[str] = []
    characters = 0
    for number, line in _lines(opened):
        text = _line_text(where, number, line, column)
        documents.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(documents) == BATCH_ROWS:
            yield documents
            documents, characters = [], 0
    if documents:
        yield documents


def _lines(opened: OpenShard) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line), never holding more than MAX_LINE bytes of one line."""
    where, number = opened.shard.url, 0
    try:
        file = _decompressed(opened)
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise InputError(
                    f"{where}: line {number}",
                    f"longer than {MAX_LINE} bytes",
                    expected="one document a line",
                    fix="split or remove the document; line breaks may be missing",
                )
            yield number, line
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        raise _damaged(opened.shard, f"after line {number}: {brief(error)}") from None


def _decompressed(opened: OpenShard) -> IO[bytes]:
    if opened.shard.name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=opened.file), 1 << 20)
    if opened.shard.name.endswith(".zst"):
        return io.BufferedReader(pa.CompressedInputStream(opened.file, "zstd"), 1 << 20)
    return opened.file


def _line_text(where: str, number: int, line: bytes, column: str) -> str:
    """Return the document of one line. Raises InputError."""
    place = f"{where}: line {number}"
    try:
        decoded = line.decode("utf-8-sig" if number == 1 else "utf-8")
        if not decoded.strip():
            return ""
        values = json.loads(decoded)
    except UnicodeDecodeError as error:
        raise InputError(
            place,
            f"byte {error.start} of the line (0x{line[error.start]:02x}) is not UTF-8",
            expected="text in UTF-8",
            fix="convert the file, such as with `iconv -f LATIN1 -t UTF-8`",
        ) from None
    except (RecursionError, ValueError) as error:
        raise InputError(place, f"not JSON ({brief(error)})", expected="one JSON object a line") from None
    if not isinstance(values, dict) or column not in values:
        found = list(values) if isinstance(values, dict) else type(values).__name__
        raise _missing(place, column, found)
    text = values[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InputError(f"{place}: {column}", f"a value of type {type(text).__name__}", expected="a string")
    # Only an escape can make a surrogate without its other half: it is no character, and no encoding holds it.
    if "\\u" in decoded and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{place}: {column}", "half of a surrogate pair", expected="Unicode text")
    return text


# Parquet


def _parquet_documents(opened: OpenShard, column: str) -> Iterator[list[str]]:
    shard, row = opened.shard, 0
    try:
        file = _open_parquet(opened, column)
        batches = file.iter_batches(_rows_at_once(file, column), columns=[column], use_threads=False)
        for batch in batches:
            texts = _texts(shard, batch.column(0), row)
            yield from _split(texts)
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, f"near row {row}: {brief(error)}") from None


def _open_parquet(opened: OpenShard, column: str) -> pq.ParquetFile:
    """Return the opened file. Raises InputError if it lacks the column or holds something else in it."""
    # Column chunks are read through a small buffer: one large row group must not be in memory whole.
    file = pq.ParquetFile(opened.file, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    schema, where = file.schema_arrow, opened.shard.url
    if column not in schema.names:
        raise _missing(where, column, schema.names)
    kind = schema.field(column).type
    inner = kind.value_type if pa.types.is_dictionary(kind) or _is_list(kind) else kind
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise InputError(f"{where}: {column}", f"a column of type {kind}", expected="strings or lists of strings")
    return file


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _rows_at_once(file: pq.ParquetFile, column: str) -> int:
    """Return how many rows decode to about ARROW_BYTES of text, by the sizes that the file's footer tells."""
    metadata, size = file.metadata, 0
    for group in range(metadata.num_row_groups):
        for leaf in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(leaf)
            if chunk.path_in_schema.split(".")[0] == column:
                size += chunk.total_uncompressed_size
    width = max(1, size // max(1, metadata.num_rows))
    return int(max(1, min(BATCH_ROWS, ARROW_BYTES // width)))


def _texts(shard: Shard, array: pa.Array, first_row: int) -> list[str]:
    """Return the documents of one column. Raises InputError for one that is not UTF-8 or too long."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        array.validate(full=True)  # Arrow does not check UTF-8 on reading
    except pa.ArrowInvalid:
        raise _not_utf8(shard, array, first_row) from None
    if _is_list(array.type):
        array = pc.binary_join(array, " ")
    longest = pc.max(pc.binary_length(array)).as_py() or 0
    if longest > MAX_LINE:
        row = first_row + pc.index(pc.binary_length(array), longest).as_py()
        raise InputError(
            f"{shard.url}: row {row}",
            f"a document of {longest} bytes",
            expected=f"at most {MAX_LINE}",
            fix="split or remove it",
        )
    return [text or "" for text in array.to_pylist()]


def _not_utf8(shard: Shard, array: pa.Array, first_row: int) -> InputError:
    for number in range(len(array)):
        try:
            array[number].as_py()
        except UnicodeDecodeError as error:
            return InputError(
                f"{shard.url}: row {first_row + number}",
                f"byte {error.start} of the document is not UTF-8",
                expected="text in UTF-8",
                fix="correct or remove the row",
            )
    return _damaged(shard, f"near row {first_row}")


def _split(texts: list[str]) -> Iterator[list[str]]:
    """Yield `texts` in runs of about BATCH_CHARACTERS."""
    start = characters = 0
    for end, text in enumerate(texts, 1):
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
    if start < len(texts):
        yield texts[start:]


# Errors


def _missing(where: str, column: str, found: Any) -> InputError:
    names = [str(name) for name in found] if isinstance(found, list) else []
    shown = ("the columns " + ", ".join(names)[:200]) if names else f"a value of type {found}"
    return InputError(
        where,
        f"no column '{column}'{nearest(column, names)}",
        expected=f"a string under '{column}'",
        fix=f"found {shown}",
    )


def _damaged(shard: Shard, reason: str) -> InputError:
    return InputError(
        shard.url, f"truncated or damaged ({shard.size} bytes; {reason})", expected="a whole file", fix="fetch it again"
    )
