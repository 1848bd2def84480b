"""What a plan needs to know of a task's data: how many rows, and some rows of its shape to train a few steps on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import SCHEMA, UNLABELLED, Schema, read_schema
from graftline.durable import write_new
from graftline.label_counts import Available, in_dataset, of_counts
from graftline.label_counts import count as count_labels
from graftline.raw.batches import RawBatch
from graftline.raw.files import Part, raw_files, read_batches

if TYPE_CHECKING:
    from graftline.tasks.validate import ValidateParams
    from graftline.values.contract import Contract

SPLITS = ("train", "val", "test")
_ROWS = 2048
_GROUPS = 8


@dataclass(frozen=True)
class Sample:
    """A small dataset in the shape of the task's: real text or random pixels, and labels that mean nothing."""

    folder: Path
    """As `validate` writes it; every split has the same few rows."""
    schema: Schema
    rows: dict[str, int]
    """How many rows each split of the whole dataset has."""
    source: str
    """Where that is known from, for people."""
    available: Available | None = None
    """The most labels that a setting can ask for; of raw data, those of all splits."""


def sample_dataset(dataset: Path, folder: Path) -> Sample:
    """Return a sample of a validated dataset, written into `folder`. Raises InputError."""
    schema = read_schema(dataset)
    rows = {name: pq.read_metadata(dataset / f"{name}.parquet").num_rows for name in (*SPLITS, UNLABELLED)}
    _write(folder, schema, lambda: _spread_rows(dataset / f"{UNLABELLED}.parquet", _names(schema)))
    return Sample(folder, schema, rows, "the validated dataset", in_dataset(dataset))


def sample_raw(raw: Path, contract: Contract, params: ValidateParams, folder: Path) -> Sample:
    """Return a sample of raw data, written into `folder`; the splits' sizes are what the fractions give.

    Raises:
        InputError: the data cannot be read, or is not as the contract says.
    """
    schema = contract.schema_of_dataset()
    files = raw_files(raw, contract.source)
    total, labelled, own, classes = _count(files, contract, schema)
    test, val = int(labelled * params.test_fraction), int(labelled * params.val_fraction)
    split = own or {"train": labelled - test - val, "val": val, "test": test}
    _write(folder, schema, lambda: _first_rows(files, contract))
    return Sample(
        folder,
        schema,
        {**split, UNLABELLED: total - split["test"]},
        "the raw data and the split fractions",
        of_counts(schema, classes, split["train"]),
    )


def _names(schema: Schema) -> list[str]:
    return [feature.name for feature in schema.features]


def _spread_rows(path: Path, columns: list[str]) -> pa.Table:
    """Return some rows of columns from all over the file: rows are often sorted by something."""
    file = pq.ParquetFile(path)
    groups = sorted(set(np.linspace(0, file.num_row_groups - 1, _GROUPS).astype(int).tolist()))
    rows = file.read_row_groups(groups, columns=columns)
    chosen = np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).astype(np.int64)
    return rows.take(pa.array(chosen))


def _first_rows(files: list[Part], contract: Contract) -> pa.Table:
    """Return some rows of the feature columns of raw tables."""
    names = list(contract.features)
    as_stored = not contract.asked.found_as and contract.source.user is None
    if as_stored and all(part.path.suffix == ".parquet" for part in files):
        rows = _spread_rows(files[0].path, names)
    else:
        rows = _typed(next(iter(read_batches(files, contract.asked))), contract, names)
    return rows.drop_null().slice(0, _ROWS)


def _typed(batch: RawBatch, contract: Contract, names: Collection[str]) -> pa.Table:
    """Return columns of a batch in the contract's types."""
    every = np.ones(batch.rows, bool)
    return pa.table({name: contract.columns[name].read(batch, name).take(every) for name in names})


def _count(
    files: list[Part], contract: Contract, schema: Schema
) -> tuple[int, int, dict[str, int] | None, Counter[str]]:
    """Return all rows, those with a label, the rows of each split if the data brings its own, and each label's."""
    total = labelled = 0
    labels: Counter[str] = Counter()
    splits = dict.fromkeys(SPLITS, 0)
    for rows, label, split in _label_columns(files, contract):
        total += rows
        if label is not None:
            labelled += rows - label.null_count
            if schema.label_column is not None and schema.label_column.one_class:
                labels += count_labels(label)
        for name in SPLITS if split is not None else ():
            splits[name] += sum(1 for value in split.to_pylist() if value == name)
    return total, labelled, splits if contract.split is not None else None, labels


def _label_columns(files: list[Part], contract: Contract) -> Iterator[tuple[int, Any, Any]]:
    """Yield number of rows, label values and split values (None without such a column), batch by batch.

    Of formats by columns only those that are needed are read: pixels and text stay on the disk.
    """
    label, split = contract.label[0] if contract.label else None, contract.split
    wanted = [name for name in (label, split) if name is not None]
    for batch in read_batches(files, replace(contract.asked, columns=wanted, others="drop")):
        columns = _typed(batch, contract, wanted)
        yield batch.rows, columns[label] if label else None, columns[split] if split else None


def _write(folder: Path, schema: Schema, real: Callable[[], pa.Table]) -> None:
    """Write the dataset, of made-up values where they do as well as real ones."""
    invented = {feature.name: feature.invented() for feature in schema.features}
    if any(values is None for values in invented.values()):
        rows = real()
        invented = {name: rows[name].combine_chunks() for name in _names(schema)}
    first = invented[schema.feature.name]
    assert first is not None
    columns = {**invented, "row": pa.array(np.arange(len(first)))}
    label = schema.label_column
    labels = {} if label is None else {label.name: label.invented(first)}
    for name in SPLITS:
        pq.write_table(pa.table(columns | labels), folder / f"{name}.parquet")
    pq.write_table(pa.table(columns), folder / f"{UNLABELLED}.parquet")
    write_new(folder / SCHEMA, json.dumps(schema.as_dict()).encode())
