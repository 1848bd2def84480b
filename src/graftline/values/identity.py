"""What a row is: digests of its content, and the split that follows from them."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

TRAIN, VAL, TEST, UNLABELLED = range(4)
SPLIT_NAMES = ("train", "val", "test", "unlabelled")
SPLITS = SPLIT_NAMES[:3]
"""Those of labelled rows."""


def cell_bytes(array: pa.Array) -> list[bytes]:
    """Return each value of a column in one form: 0 for null; else 1 and the value's bytes.

    Numbers are little-endian, -0.0 as 0.0; images are their pixels; text is its length (8 bytes) and UTF-8;
    a list of words is their number (8 bytes) and each word as text.
    """
    kind = array.type
    if pa.types.is_string(kind):
        return [b"\0" if text is None else b"\1" + _text_bytes(text) for text in array.to_pylist()]
    if pa.types.is_list(kind):
        lists = array.to_pylist()
        return [
            b"\0" if words is None else b"\1" + _count_bytes(words) + b"".join(map(_text_bytes, words))
            for words in lists
        ]
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
    flat = array.flatten() if pa.types.is_fixed_size_list(kind) else array.fill_null(0)
    values = flat.to_numpy(zero_copy_only=False)
    if np.issubdtype(values.dtype, np.floating):
        values = values + 0.0  # -0.0 becomes 0.0
    raw = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data.cast("B")
    step = size * values.dtype.itemsize
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    cells = [b"\1" + raw[start : start + step] for start in range(0, len(array) * step, step)]
    return cells if valid is None else [c if ok else b"\0" for c, ok in zip(cells, valid, strict=True)]


def _count_bytes(values: list[str] | bytes) -> bytes:
    return len(values).to_bytes(8, "little")


def _text_bytes(text: str) -> bytes:
    encoded = text.encode()
    return _count_bytes(encoded) + encoded


def split_by_digest(digests: np.ndarray, test_fraction: float, val_fraction: float) -> np.ndarray:
    """Return the split of each row, (n,) uint8, from the (n, 32) digests of its features.

    The first 8 bytes, as a number in [0, 1), say it: below `test_fraction` test, below that plus
    `val_fraction` val, else train. It depends on the row alone, so rows that are added later never move it.
    """
    place = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0] / 2.0**64
    split = np.where(place < test_fraction + val_fraction, VAL, TRAIN)
    return np.where(place < test_fraction, TEST, split).astype(np.uint8)


def group_digests(values: pa.Array) -> np.ndarray:
    """Return (n, 32) uint8 digests of the groups' values, equal for equal ones, that their rows' split goes by."""
    encoded = values.dictionary_encode()
    hashed = pa.types.is_fixed_size_binary(values.type)  # of persons' ids
    cells = encoded.dictionary.to_pylist() if hashed else cell_bytes(encoded.dictionary)
    known = [hashlib.sha256(cell).digest() for cell in cells]
    found: np.ndarray = np.frombuffer(b"".join(known), np.uint8).reshape(-1, 32)[encoded.indices.to_numpy()]
    return found


class SeenValues:
    """The set of values seen so far, kept as 128 bits of their sha256 in sorted arrays: 16 bytes a value."""

    def __init__(self) -> None:
        self._keys = np.empty(0, [("high", "<u8"), ("low", "<u8")])

    def add(self, cells: list[bytes]) -> np.ndarray:
        """Add a batch; return (n,) int64: 1 where the value was seen before, in this batch or an earlier one.

        Nulls are not compared.
        """
        digests = b"".join(hashlib.sha256(cell).digest()[:16] for cell in cells)
        keys = np.frombuffer(digests, self._keys.dtype)
        _, first = np.unique(keys, return_index=True)
        repeats = np.ones(len(keys), np.int64)
        repeats[first] = 0
        place = np.searchsorted(self._keys, keys)
        inside = place < len(self._keys)
        repeats[inside] |= (self._keys[place[inside]] == keys[inside]).astype(np.int64)
        null = np.array([cell == b"\0" for cell in cells], bool)
        repeats[null] = 0
        new = np.sort(keys[(repeats == 0) & ~null])
        self._keys = np.insert(self._keys, np.searchsorted(self._keys, new), new)
        return repeats
