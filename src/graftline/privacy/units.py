"""Which training rows are of one unit of privacy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from graftline.dataset import numbered
from graftline.errors import InputError
from graftline.privacy.parameters import PrivacyParams
from graftline.problems.groups import INDEX, SUBJECT


def read_units(params: PrivacyParams | None, dataset: Path, rows: torch.Tensor) -> torch.Tensor | None:
    """Return (n,) the number of the unit of each of the rows, from 0; None where each row is its own.

    A row without a subject is a unit by itself.

    Raises:
        InputError: subjects are asked for, and the dataset's row index knows none.
    """
    if params is None or params.unit == "row":
        return None
    path = dataset / INDEX
    if not path.is_file() or SUBJECT not in pq.read_schema(path).names:
        raise InputError(
            path, "no subjects", expected="a keyed hash of each row's person, for finetune.privacy.unit: subject",
            fix="name the column of persons' ids as `subject` in the contract, or set unit: row",
        )  # fmt: skip
    index = pq.read_table(path, columns=["row", SUBJECT]).sort_by("row")
    return torch.from_numpy(numbered(index[SUBJECT].take(np.searchsorted(index["row"].to_numpy(), rows.numpy()))))
