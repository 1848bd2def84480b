"""Whether the labelled data has what the parameters ask for: known before any training, so that none is in vain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError

if TYPE_CHECKING:
    from graftline.tasks.parameters import Params


@dataclass(frozen=True)
class Available:
    """The most labels that a setting can ask for."""

    count: int
    who: str
    """Whose they are, such as `class spam has`."""
    amount: str
    """What they count."""


def in_dataset(dataset: Path) -> Available:
    """Return what the training split of a validated dataset has. Raises InputError."""
    schema, path = read_schema(dataset), dataset / "train.parquet"
    try:
        if not _one_class(schema):
            return of_counts(schema, Counter(), pq.read_metadata(path).num_rows)
        with pq.ParquetFile(path) as file:  # `read_table` would load pandas
            labels = file.read(columns=[schema.label])[schema.label]
        return of_counts(schema, count(labels), len(labels))
    except (pa.ArrowException, KeyError) as error:
        raise InputError(path, f"not as schema.json says ({error})", fix="run validate again") from None


def count(labels: Any) -> Counter[str]:
    """Return how often each value stands in an Arrow column."""
    values = labels.value_counts().to_pylist()
    return Counter({str(value["values"]): value["counts"] for value in values if value["values"] is not None})


def of_counts(schema: Schema, labels: Counter[str], rows: int) -> Available:
    """Return the rarest class and its labels; where an example has no one class, all rows."""
    if not _one_class(schema):
        return Available(rows, "there are", "rows in all")
    rarest = min(schema.classes, key=lambda name: labels[str(name)])
    return Available(labels[str(rarest)], f"class {rarest} has", "labels a class")


def _one_class(schema: Schema) -> bool:
    return schema.label_column is not None and schema.label_column.one_class


def asked(finetune: Params, evaluate: Params) -> dict[str, int]:
    """Return the most labels that each setting asks for, without those that ask for none in particular."""
    sections = {"finetune": finetune.model_dump(), "evaluate": evaluate.model_dump()}
    found = {}
    for name in ("finetune.labels_per_class", "evaluate.lift_labels", "evaluate.budget_labels"):
        section, _, key = name.partition(".")
        value = sections[section].get(key)
        counts = [count for count in (value if isinstance(value, tuple | list) else [value]) if count is not None]
        if counts:
            found[name] = max(counts)
    return found


def check(asked: dict[str, int], available: Available) -> None:
    """Raise InputError if a setting asks for more labels than there are."""
    for name, count in asked.items():
        if count > available.count:
            raise InputError(
                name,
                f"{count} {available.amount}",
                expected=f"at most {available.count}, which {available.who} in train",
                fix="lower it, or label more data",
            )
