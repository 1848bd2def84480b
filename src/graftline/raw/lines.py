"""The lines of a text file, in bounded memory, decoded and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from graftline.errors import InputError
from graftline.raw.limits import MAX_LINE

OTHER_FORMATS = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
"""What a file of another format begins with."""


def read_lines(path: Path) -> Iterator[str]:
    """Yield the decoded lines of `path`, reading at most MAX_LINE + 1 bytes at once."""
    offset = 0
    with path.open("rb", buffering=1 << 20) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                _check_format(path, line)
            yield _decode(path, line, number, offset).removeprefix("\ufeff" if number == 1 else "")
            offset += len(line)


def _check_format(path: Path, line: bytes) -> None:
    if kind := OTHER_FORMATS.get(line[:4]) or OTHER_FORMATS.get(line[:2]):
        raise InputError(
            path,
            f"starts with {line[:4]!r}, which is {kind}",
            expected=f"{'CSV' if path.suffix == '.csv' else 'JSON lines'} in UTF-8",
            fix="convert it, or give it the right ending",
        )


def _decode(path: Path, line: bytes, number: int, offset: int) -> str:
    if len(line) > MAX_LINE:
        raise InputError(
            f"{path}: line {number}",
            f"longer than {MAX_LINE} bytes (it starts at byte {offset})",
            expected="one row a line",
            fix="remove the line; an opening quote or a line break may be missing",
        )
    nul = line.find(b"\0")
    if nul >= 0:
        raise InputError(
            f"{path}: line {number}",
            f"a NUL byte at byte {offset + nul}",
            expected="text in UTF-8",
            fix="remove it; UTF-16 text must be converted",
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: line {number}",
            f"byte {offset + error.start} (0x{line[error.start]:02x}) is not UTF-8",
            expected="text in UTF-8",
            fix="convert the file, such as with `iconv -f LATIN1 -t UTF-8`",
        ) from None
