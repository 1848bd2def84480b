"""What the formats of typed columns share: batches of Arrow as batches of rows, of bounded size once decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.reader import Asked


def flat_names(fields: Iterable[pa.Field], asked: Asked) -> list[str]:
    """Return the columns' names, those of structs in whose fields a column is asked for as those of their fields."""
    return list(_flat(fields, "", set(asked.names)))


def _flat(fields: Iterable[pa.Field], before: str, wanted: set[str]) -> Iterator[str]:
    for field in fields:
        name = before + field.name
        inside = name not in wanted and any(other.startswith(f"{name}.") for other in wanted)
        if inside and pa.types.is_struct(field.type):
            yield from _flat(field.type, f"{name}.", wanted)
        else:
            yield name


def raw_batches(
    path: Path, asked: Asked, batch: pa.RecordBatch, first_row: int, dropped: tuple[str, ...]
) -> Iterator[RawBatch]:
    """Yield the rows of a batch, dictionaries decoded, in parts of about BATCH_BYTES.

    Raises:
        InputError: text is not UTF-8, or a value is longer than MAX_LINE.
    """
    picked = {name: _pick(batch, asked.found_as.get(name, name)) for name in asked.columns}
    start = 0
    for end in _ends(picked, batch.num_rows):
        arrays = {name: _plain(array.slice(start, end - start)) for name, array in picked.items()}
        for name, array in arrays.items():
            _check_sizes(path, name, array, first_row)
        yield RawBatch(path, first_row, arrays, False, np.full(end - start, len(arrays), np.int64), dropped)
        first_row, start = first_row + end - start, end


def _pick(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column, or a field of one."""
    if name in batch.schema.names:
        return batch.column(name)
    parts = name.split(".")
    top = next(end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in batch.schema.names)
    return pc.struct_field(batch.column(".".join(parts[:top])), parts[top:])


def _ends(columns: dict[str, pa.Array], rows: int) -> list[int]:
    """Return where to divide the rows: a dictionary's short indices may stand for long values."""
    sizes = np.full(rows, sum(array.nbytes for array in columns.values()) // max(1, rows), np.int64)
    for array in columns.values():
        if pa.types.is_dictionary(array.type) and _is_text(array.type.value_type):
            lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
            sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    if rows <= limits.MAX_ROWS and sizes.sum() <= 2 * limits.BATCH_BYTES:
        return [rows] if rows else []
    total, ends = np.cumsum(sizes), list[int]()
    while (ends[-1] if ends else 0) < rows:
        start = ends[-1] if ends else 0
        limit = (total[start - 1] if start else 0) + limits.BATCH_BYTES
        ends.append(int(np.clip(np.searchsorted(total, limit, "right"), start + 1, start + limits.MAX_ROWS)))
        ends[-1] = min(ends[-1], rows)
    return ends


def _plain(array: pa.Array) -> pa.Array:
    """Return an array without a dictionary or a view, of an extension the storage, of a decimal the float."""
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return array.dictionary_decode()
    if pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_binary_view(kind):
        return array.cast(pa.binary())
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return array.cast(pa.large_list(kind.value_type))
    return array


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check_sizes(path: Path, name: str, array: pa.Array, first_row: int) -> None:
    kind = array.type
    of_lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (of_lists or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return
    lengths = pc.list_value_length(array) if of_lists else pc.binary_length(array)
    longest = pc.max(lengths).as_py()
    if longest is not None and longest > limits.MAX_LINE:
        row = first_row + pc.index(lengths, longest).as_py()
        raise InputError(
            path,
            f"row {row}: column '{name}' holds a value of length {longest}",
            expected=f"at most {limits.MAX_LINE}",
            fix="remove the row",
        )
