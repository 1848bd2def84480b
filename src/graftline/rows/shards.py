"""Shards of the row index: sorted entries of one width, made in bounded memory, searched by bisection.

An entry is the digest's first 16 bytes less the whole bytes that the shard's name gives, then, in a segment of several
datasets, one byte that says which, then 4 bytes, little-endian: the row number times 4, plus the split's number. An
entry that was taken out is all 0xff and stands at the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np

from graftline.errors import InputError

DIGEST_BYTES = 16
"""Of a digest's 32: among 10**9 rows two different ones share them with probability 10**-21."""
VALUE_BYTES = 4
MAX_ROW = 2**30 - 1
SHARD_BYTES = 512 << 10
"""Largest size of a shard that is aimed at: a question reads and hashes one in each segment."""
WHOLE = "all"
"""The name of the only shard of a small segment."""
_BUCKETS = 256
_IN_MEMORY = 64 << 10
"""Bytes of a bucket that need no file: a small dataset has none."""


@dataclass(frozen=True)
class Layout:
    """How a segment's entries lie in its shards."""

    digits: int
    several: bool
    """Whether an entry says which of several datasets it is of."""

    @classmethod
    def of(cls, rows: int, *, several: bool) -> Layout:
        digits = 0
        while rows * cls(digits, several).width > SHARD_BYTES << 4 * digits:
            digits += 1
        return cls(digits, several)

    @property
    def given(self) -> int:
        """How many of the digest's first bytes the shard's name gives."""
        return self.digits // 2

    @property
    def kept(self) -> int:
        return DIGEST_BYTES - self.given

    @property
    def width(self) -> int:
        return self.kept + self.several + VALUE_BYTES

    def shard_of(self, digest: bytes) -> str:
        return digest.hex()[: self.digits] or WHOLE


def search(data: bytes, layout: Layout, digest: bytes) -> list[tuple[int, int, int]]:
    """Return (which dataset, row, split) of each entry of `digest` (16 bytes)."""
    width, kept, wanted = layout.width, layout.kept, digest[layout.given :]

    def part(place: int) -> bytes:
        return data[place * width : place * width + kept]

    place, count, found = bisect_left(range(len(data) // width), wanted, key=part), len(data) // width, []
    while place < count and part(place) == wanted:
        entry = data[place * width : (place + 1) * width]
        value = int.from_bytes(entry[-VALUE_BYTES:], "little")
        if entry != b"\xff" * width:
            found.append((entry[kept] if layout.several else 0, value >> 2, value & 3))
        place += 1
    return found


def without(data: bytes, layout: Layout, digest: bytes) -> tuple[bytes, int]:
    """Return the shard with the entries of `digest` overwritten, and how many those were."""
    width, kept, wanted = layout.width, layout.kept, digest[layout.given :]
    entries = [data[start : start + width] for start in range(0, len(data), width)]
    left = [entry for entry in entries if entry[:kept] != wanted]
    gone = len(entries) - len(left)
    return b"".join(left) + b"\xff" * (gone * width), gone


def decode(name: str, data: bytes, layout: Layout) -> np.ndarray:
    """Return a shard's entries, without those that were taken out: digest (16 bytes), of (which dataset), value."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, layout.width)
    raw = raw[~(raw == 0xFF).all(axis=1)]
    digests = np.empty((len(raw), DIGEST_BYTES), np.uint8)
    digests[:, : layout.given] = np.frombuffer(
        bytes.fromhex(name[: 2 * layout.given]) if layout.given else b"", np.uint8
    )
    digests[:, layout.given :] = raw[:, : layout.kept]
    entries = np.empty(len(raw), _dtype())
    entries["digest"] = digests.view("V16")[:, 0]
    entries["of"] = raw[:, layout.kept] if layout.several else 0
    entries["value"] = np.ascontiguousarray(raw[:, -VALUE_BYTES:]).view("<u4")[:, 0]
    return entries


class Sorter:
    """Entries on their way into shards: spread over files by their first byte, each sorted in memory."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._files = [
            SpooledTemporaryFile(_IN_MEMORY, dir=str(folder))  # noqa: SIM115 (closed as it is read)
            for _ in range(_BUCKETS)
        ]

    def add(self, digests: np.ndarray, rows: np.ndarray, splits: np.ndarray, of: int = 0) -> None:
        """Add entries.

        Args:
            digests: (n, 16) uint8.
            rows: (n,) row numbers. Raises InputError for one above MAX_ROW.
            splits: (n,) split numbers, 0 to 3.
            of: the number of the dataset in the segment.
        """
        if len(rows) and int(rows.max()) > MAX_ROW:
            raise InputError("row index", f"row {int(rows.max())}", expected=f"at most {MAX_ROW}")
        entries = np.empty(len(rows), _dtype())
        entries["digest"] = np.ascontiguousarray(digests).view("V16")[:, 0]
        entries["of"] = of
        entries["value"] = rows.astype(np.uint32) << 2 | splits.astype(np.uint32)
        self._spread(entries)

    def add_shard(self, name: str, data: bytes, layout: Layout, first: int) -> None:
        """Add the entries of a shard of another segment, whose datasets have the numbers from `first` on."""
        entries = decode(name, data, layout)
        entries["of"] += first
        self._spread(entries)

    def shards(self, layout: Layout) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each shard that is not empty, in order."""
        name = ""
        waiting: list[bytes] = []
        for file in self._files:
            file.seek(0)
            entries = _sorted(np.frombuffer(file.read(), _dtype()))
            for found, part in _cut(entries, layout):
                if found != name and waiting:
                    yield name, b"".join(waiting)
                    waiting = []
                name = found
                waiting.append(part)
            file.close()
        if waiting:
            yield name, b"".join(waiting)

    def _spread(self, entries: np.ndarray) -> None:
        self.rows += len(entries)
        first = entries.view(np.uint8).reshape(len(entries), -1)[:, 0]
        order = np.argsort(first, kind="stable")
        ends = np.cumsum(np.bincount(first, minlength=_BUCKETS))
        for number, part in enumerate(np.split(entries[order], ends[:-1])):
            if len(part):
                self._files[number].write(part.tobytes())


def _dtype() -> np.dtype[np.void]:
    return np.dtype([("digest", "V16"), ("of", "u1"), ("value", "<u4")])


def _sorted(entries: np.ndarray) -> np.ndarray:
    """Sort by digest, then dataset, then value: equal rows give equal bytes, in whatever order they came."""
    halves = np.ascontiguousarray(entries["digest"]).view([("high", ">u8"), ("low", ">u8")])
    return entries[np.lexsort((entries["value"], entries["of"], halves["low"], halves["high"]))]


def _cut(entries: np.ndarray, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Yield each shard's name and its part of one bucket's sorted entries, in the layout's form."""
    if not len(entries):
        return
    raw = entries.view(np.uint8).reshape(len(entries), -1)
    columns = np.arange(layout.given, raw.shape[1])
    if not layout.several:
        columns = columns[columns != DIGEST_BYTES]
    if layout.digits == 0:
        yield WHOLE, raw[:, columns].tobytes()
        return
    high = np.ascontiguousarray(entries["digest"]).view(">u8").reshape(-1, 2)[:, 0]
    prefix = high >> np.uint64(64 - 4 * layout.digits)
    found, starts = np.unique(prefix, return_index=True)
    for number, part in zip(found, np.split(raw, starts[1:]), strict=True):
        yield f"{int(number):0{layout.digits}x}", part[:, columns].tobytes()
