"""What a plan needs to know of a task's data: how many rows, and some rows of its shape to train a few steps on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.dataset import SCHEMA, UNLABELLED, Schema, read_schema
from graftline.durable import write_new
from graftline.values.image import ImageColumn
from graftline.values.words import TokensColumn

if TYPE_CHECKING:
    import pyarrow as pa

    from graftline.tasks.validate import ValidateParams
    from graftline.values.contract import Contract

SPLITS = ("train", "val", "test")
_ROWS = 2048
_GROUPS = 8
_PIXELS = 1 << 24


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


def sample_dataset(dataset: Path, folder: Path) -> Sample:
    """Return a sample of a validated dataset, written into `folder`. Raises InputError."""
    import pyarrow.parquet as pq

    schema = read_schema(dataset)
    rows = {name: pq.read_metadata(dataset / f"{name}.parquet").num_rows for name in (*SPLITS, UNLABELLED)}
    features = None
    if not isinstance(schema.feature, ImageColumn):
        features = _spread_rows(dataset / f"{UNLABELLED}.parquet", schema.feature.name)
    _write(folder, schema, features)
    return Sample(folder, schema, rows, "the validated dataset")


def sample_raw(raw: Path, contract: Contract, params: ValidateParams, folder: Path) -> Sample:
    """Return a sample of raw data, written into `folder`; the splits' sizes are what the fractions give.

    Raises:
        InputError: the data cannot be read, or is not as the contract says.
    """
    from graftline.tables import raw_files

    schema = contract.schema_of_dataset()
    files = raw_files(raw)
    total, labelled, own = _count(files, contract)
    test, val = int(labelled * params.test_fraction), int(labelled * params.val_fraction)
    split = own or {"train": labelled - test - val, "val": val, "test": test}
    features = None if isinstance(schema.feature, ImageColumn) else _first_rows(files, contract)
    _write(folder, schema, features)
    return Sample(
        folder, schema, {**split, UNLABELLED: total - split["test"]}, "the raw data and the split fractions"
    )


def _spread_rows(path: Path, column: str) -> pa.Array:
    """Return some values of a column from all over the file: rows are often sorted by something."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    groups = sorted(set(np.linspace(0, file.num_row_groups - 1, _GROUPS).astype(int).tolist()))
    values = file.read_row_groups(groups, columns=[column])[column]
    chosen = np.linspace(0, len(values) - 1, min(_ROWS, len(values))).astype(np.int64)
    return pa.concat_arrays(values.take(pa.array(chosen)).chunks)


def _first_rows(files: list[Path], contract: Contract) -> pa.Array:
    """Return some values of the feature column of raw tables."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from graftline.tables import read_batches

    name = contract.feature[0]
    if all(path.suffix == ".parquet" for path in files):
        values = _spread_rows(files[0], name)
    else:
        batch = next(iter(read_batches(files, list(contract.columns))))
        values = batch.columns[name]
        if batch.is_text and pa.types.is_string(values.type) and contract.feature[1].type == "tokens":
            values = pc.utf8_split_whitespace(values)
    return values.drop_null().slice(0, _ROWS)


def _count(files: list[Path], contract: Contract) -> tuple[int, int, dict[str, int] | None]:
    """Return all rows, those with a label, and the rows of each split if the data brings its own."""
    total = labelled = 0
    splits = dict.fromkeys(SPLITS, 0)
    for rows, label, split in _label_columns(files, contract):
        total += rows
        labelled += 0 if label is None else rows - label.null_count
        for name in SPLITS if split is not None else ():
            splits[name] += sum(1 for value in split.to_pylist() if value == name)
    return total, labelled, splits if contract.split is not None else None


def _label_columns(files: list[Path], contract: Contract) -> Iterator[tuple[int, Any, Any]]:
    """Yield number of rows, label values and split values (None without such a column), part by part."""
    import pyarrow.parquet as pq

    from graftline.tables import read_batches

    label, split = contract.label[0] if contract.label else None, contract.split
    for path in files:
        if path.suffix == ".parquet":  # only the columns that are needed: pixels and text stay on the disk
            wanted = [name for name in (label, split) if name is not None]
            table = pq.read_table(path, columns=wanted)
            yield table.num_rows, table[label] if label else None, table[split] if split else None
        else:
            for batch in read_batches([path], list(contract.columns)):
                columns = batch.columns
                yield batch.rows, columns[label] if label else None, columns[split] if split else None


def _write(folder: Path, schema: Schema, features: pa.Array | None) -> None:
    """Write the dataset; random pixels for None."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    if features is None:
        features = _random_images(schema.image)
    columns = {schema.feature.name: features, "row": pa.array(np.arange(len(features)))}
    label = {} if schema.label is None else {schema.label: _labels(schema, features)}
    for name in SPLITS:
        pq.write_table(pa.table(columns | label), folder / f"{name}.parquet")
    pq.write_table(pa.table(columns), folder / f"{UNLABELLED}.parquet")
    write_new(folder / SCHEMA, json.dumps(schema.as_dict()).encode())


def _random_images(image: ImageColumn) -> pa.Array:
    import pyarrow as pa

    size = image.shape[0] * image.shape[1]
    count = max(64, min(_ROWS, _PIXELS // size))
    pixels = np.random.default_rng(0).uniform(0, image.maximum, count * size).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(pixels), size)


def _labels(schema: Schema, features: pa.Array) -> pa.Array:
    """Return each class in turn; for words, a list of them as long as the sentence."""
    import pyarrow as pa

    classes = schema.classes
    if isinstance(schema.feature, TokensColumn):
        return pa.array(
            [[classes[i % len(classes)] for i in range(len(row))] for row in features.to_pylist()]
        )
    return pa.array([classes[i % len(classes)] for i in range(len(features))])
