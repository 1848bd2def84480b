"""Arrow arrays of images: encoded pictures on their way to another process, and lists of pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from graftline.values.decoding import Packed, Rule
from graftline.values.strings import lengths_of


def packed(array: pa.Array) -> Packed:
    """Return what `encoded.files_of` does, to travel to another process."""
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


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flattened(array: pa.Array, rule: Rule) -> tuple[pa.Array, np.ndarray]:
    """Return lists of rows of pixels as lists of numbers, and (n,) bool: which hold a row of another length."""
    ragged = np.zeros(len(array), bool)
    for size in rule.shape[1:]:  # rows, then channels
        if not (is_list(array.type) and is_list(array.type.value_type)):
            break
        outer = lengths_of(array)
        inner = array.flatten()
        lengths = lengths_of(inner)
        ends = np.concatenate([[0], np.cumsum(lengths)])[np.concatenate([[0], np.cumsum(outer)])]
        ragged[np.repeat(np.arange(len(array)), outer)[lengths != size]] = True
        array = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), inner.flatten())
    return array, ragged
