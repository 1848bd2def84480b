"""Arrow arrays of images: encoded pictures as bytes or `{bytes, path}`, and lists of pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.values.decoding import Packed, Rule


def encoded(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are encoded pictures: bytes, or Hugging Face's `{bytes, path}`."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and encoded(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def pictures_of(array: pa.Array) -> list[tuple[bytes | None, str | None]]:
    """Return the bytes of each picture, None for a missing one, and its path, None where there is none."""
    if not pa.types.is_struct(array.type):
        return [(data, None) for data in array.to_pylist()]
    return [(None, None) if value is None else (value["bytes"], value.get("path")) for value in array.to_pylist()]


def packed(array: pa.Array) -> Packed:
    """Return what `pictures_of` does, to travel to another process."""
    path = None
    if pa.types.is_struct(array.type):
        fields = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        array, path = fields["bytes"], fields.get("path")
    array = array.cast(pa.large_binary())
    missing = frozenset(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    taken = b"" if data is None else data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).to_pybytes()
    ends = tuple((offsets[1:] - offsets[0]).tolist())
    return Packed(taken, ends, (None,) * len(array) if path is None else tuple(path.to_pylist()), missing)


def given(array: pa.Array) -> np.ndarray:
    """Return (n,) bool: which rows have a picture, or at least a path."""
    given: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_struct(array.type):
        parts = [field.is_valid().to_numpy(zero_copy_only=False) for field in array.flatten()]
        given = given & np.logical_or.reduce(parts)
    return given


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flattened(array: pa.Array, rule: Rule) -> tuple[pa.Array, np.ndarray]:
    """Return lists of rows of pixels as lists of numbers, and (n,) bool: which hold a row of another length."""
    ragged = np.zeros(len(array), bool)
    for size in rule.shape[1:]:  # rows, then channels
        if not (is_list(array.type) and is_list(array.type.value_type)):
            break
        outer = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        inner = array.flatten()
        lengths = pc.fill_null(pc.list_value_length(inner), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(lengths)])[np.concatenate([[0], np.cumsum(outer)])]
        ragged[np.repeat(np.arange(len(array)), outer)[lengths != size]] = True
        array = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), inner.flatten())
    return array, ragged
