"""The lines of a text file, plain or compressed, in bounded memory, decoded and checked."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from graftline.errors import InputError, brief
from graftline.raw import limits
from graftline.raw.faults import damaged

COMPRESSIONS = (".gz", ".zst")
HEAD = 256 << 10
"""Bytes of a file that guesses are made from."""
OTHER_FORMATS = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
"""What a file of another format begins with."""


def ending(path: Path) -> str:
    """Return the ending of a file's name without that of a compression: `.csv` of `x.csv.gz`."""
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


@contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file for reading its content, decompressed; yield that and the file itself.

    Raises:
        InputError: while it is read: it is damaged, or decompresses to more than `limits.expansion` allows.
    """
    with path.open("rb", buffering=1 << 20) as file:
        try:
            if path.suffix not in COMPRESSIONS:
                yield file, file
                return
            inner = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else pa.CompressedInputStream(file, "zstd")
            yield io.BufferedReader(_Bounded(path, inner), 1 << 16), file
        except (EOFError, gzip.BadGzipFile, zlib.error, pa.ArrowException) as error:
            raise damaged(path, brief(error), f"{path.suffix} file") from None
        except OSError as error:  # Arrow's word for a damaged stream
            if error.errno is not None or path.suffix not in COMPRESSIONS:
                raise
            raise damaged(path, brief(error), f"{path.suffix} file") from None


def read_head(path: Path) -> tuple[bytes, int]:
    """Return the first HEAD bytes of a file's content, and how many bytes that seems to have in all."""
    with _open(path) as (content, file):
        head = content.read(HEAD)
        taken = file.tell() if len(head) == HEAD else path.stat().st_size
    return head, round(len(head) * path.stat().st_size / max(1, taken))


def scaled(rows: int, head: bytes, size: int) -> tuple[int, bool]:
    """Return how many rows a file has whose beginning has `rows`, and whether that is exact."""
    return (rows, True) if len(head) >= size else (round(rows * size / len(head)), False)


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends in an InputError once it is out of all proportion to its file."""

    def __init__(self, path: Path, inner: Any) -> None:
        self._path, self._inner = path, inner
        self._left = limits.expansion(path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self._left -= len(data)
        if self._left < 0:
            size = self._path.stat().st_size
            raise InputError(
                self._path,
                f"{size} bytes that decompress to more than {limits.expansion(size)}",
                expected=f"at most {limits.EXPANSION} times its size",
                fix="decompress it, if it is what it should be",
            )
        return len(data)


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of `path`, decompressed, in blocks of bounded size. Raises InputError."""
    with _open(path) as (file, _):
        while block := file.read(1 << 16):
            yield block


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the decoded lines of `path`, reading at most MAX_LINE + 1 bytes at once. Raises InputError."""
    with _open(path) as (file, _):
        if len("\n".encode(encoding)) > 1:  # two bytes or more a character, in an order that a mark may tell
            yield from _wide_lines(path, file, encoding)
            return
        offset = number = 0
        while line := file.readline(limits.MAX_LINE + 1):
            number += 1
            if number == 1:
                _check_format(path, line, encoding)
            decoded = _decode(path, line, number, offset, encoding)
            yield decoded.removeprefix("\ufeff") if number == 1 else decoded
            offset += len(line)


def _wide_lines(path: Path, file: IO[bytes], encoding: str) -> Iterator[str]:
    text = io.TextIOWrapper(file, encoding=encoding, newline="\n")
    number = 0
    while True:
        number += 1
        try:
            line = text.readline(limits.MAX_LINE + 1)
        except UnicodeError as error:
            raise _not_in(encoding, f"{path}: line {number} or soon after", str(error)) from None
        if not line:
            return
        _check_line(path, len(line), line.find("\0"), number, 0)
        yield line.removeprefix("\ufeff") if number == 1 else line


def _check_format(path: Path, line: bytes, encoding: str) -> None:
    kind = OTHER_FORMATS.get(line[:4]) or OTHER_FORMATS.get(line[:2])
    if kind is None or (codecs.lookup(encoding).name != "utf-8" and kind.startswith("UTF")):
        return
    raise InputError(
        path,
        f"starts with {line[:4]!r}, which is {kind}",
        expected=f"{'JSON lines' if ending(path) == '.jsonl' else 'CSV'} in UTF-8",
        fix="convert it, or give it the right ending"
        + (", or declare `source: {encoding: utf-16}` in the contract" if kind.startswith("UTF") else ""),
    )


def _decode(path: Path, line: bytes, number: int, offset: int, encoding: str) -> str:
    _check_line(path, len(line), line.find(b"\0"), number, offset)
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_in(
            encoding, f"{path}: line {number}", f"byte {offset + error.start} (0x{line[error.start]:02x})"
        ) from None


def _check_line(path: Path, length: int, nul: int, number: int, offset: int) -> None:
    if length > limits.MAX_LINE:
        raise InputError(
            f"{path}: line {number}",
            f"longer than {limits.MAX_LINE} bytes (it starts at byte {offset})",
            expected="one row a line",
            fix="remove the line; an opening quote or a line break may be missing",
        )
    if nul >= 0:
        raise InputError(
            f"{path}: line {number}",
            f"a NUL byte at byte {offset + nul}",
            expected="text in UTF-8",
            fix="remove it; of UTF-16 text declare `source: {encoding: utf-16}` in the contract",
        )


def _not_in(encoding: str, where: str, found: str) -> InputError:
    name = "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding
    return InputError(
        where,
        f"{found} is not {name}",
        expected=f"text in {name}",
        fix="declare what it is in, such as `source: {encoding: cp1252}` in the contract, or convert it with `iconv`",
    )
