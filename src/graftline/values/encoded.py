"""Arrow arrays of encoded files, such as pictures and clips: bytes, or Hugging Face's `{bytes, path}`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def encoded(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are encoded files."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and encoded(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def files_of(array: pa.Array) -> list[tuple[bytes | None, str | None]]:
    """Return the bytes of each file, None for a missing one, and its path, None where there is none."""
    if not pa.types.is_struct(array.type):
        return [(data, None) for data in array.to_pylist()]
    return [(None, None) if value is None else (value["bytes"], value.get("path")) for value in array.to_pylist()]


def given(array: pa.Array) -> np.ndarray:
    """Return (n,) bool: which rows have a file, or at least a path."""
    given: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_struct(array.type):
        parts = [field.is_valid().to_numpy(zero_copy_only=False) for field in array.flatten()]
        given = given & np.logical_or.reduce(parts)
    return given
