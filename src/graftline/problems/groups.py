"""Which rows of a split come together: those of one value of the column that the contract calls the group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from graftline.dataset import numbered, read_schema
from graftline.errors import InputError
from graftline.score import Integers

INDEX = "rows.parquet"
SUBJECT = "subject"
"""Of the row index: a keyed hash of each row's person. A column of ids is kept nowhere else."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each row of a split."""

    column: str
    """Its name in the contract."""
    rows: Integers
    """(n,) the rows of the split, ascending."""
    numbers: Integers
    """(n,) the group of each, from 0."""

    def of(self, rows: Integers) -> Integers:
        """Return the groups of some of the rows, each as often as it is named."""
        return self.numbers[np.searchsorted(self.rows, rows)]


def read_groups(dataset: Path, split: str) -> Groups | None:
    """Return which rows of a split come together; None where each stands by itself.

    Raises:
        InputError: the dataset has not the column that its schema names.
    """
    column = read_schema(dataset).group
    if column is None:
        return None
    path, name = dataset / f"{split}.parquet", column
    rows = pq.read_table(path, columns=["row"])["row"].to_numpy()
    if column not in pq.read_schema(path).names:
        path, name = dataset / INDEX, SUBJECT
    if not path.is_file() or name not in pq.read_schema(path).names:
        raise InputError(path, f"no column '{name}', the groups of {split}", fix="run validate again")
    table = pq.read_table(path, columns=["row", name]).sort_by("row")
    rows = np.sort(rows)
    values = table[name].take(np.searchsorted(table["row"].to_numpy(), rows))
    return Groups(column, rows, numbered(values))
