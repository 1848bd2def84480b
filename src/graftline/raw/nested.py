"""Fields of structs as columns: `meta.language` is the field `language` of the column `meta`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from graftline.raw.reader import Asked


def flat_names(fields: Iterable[pa.Field], asked: Asked) -> list[str]:
    """Return the columns' names, those of structs in whose fields a column is asked for as those of their fields."""
    return list(_flat(fields, "", set(asked.names)))


def _flat(fields: Iterable[pa.Field], before: str, wanted: set[str]) -> Iterator[str]:
    for field in fields:
        name = before + field.name
        if name not in wanted and any(other.startswith(f"{name}.") for other in wanted) and is_struct(field.type):
            yield from _flat(field.type, f"{name}.", wanted)
        else:
            yield name


def is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind))


def pick(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column, or a field of one."""
    if name in batch.schema.names:
        return batch.column(name)
    parts = name.split(".")
    top = next(end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in batch.schema.names)
    return pc.struct_field(batch.column(".".join(parts[:top])), parts[top:])
