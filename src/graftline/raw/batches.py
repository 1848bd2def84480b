"""What every format is read as: batches of rows, bounded in rows and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of one file, as found."""

    file: Path
    first_row: int
    """The number of the batch's first row; rows are numbered from 0 across all files."""
    columns: dict[str, pa.Array]
    """Each column by name, equally long. Of a CSV file: strings, null for an empty cell."""
    is_text: bool
    """Whether the values are text still to be parsed (CSV)."""
    cells: np.ndarray
    """(n,), int64: how many cells each row has, dropped ones left out; a row with a wrong number has nulls in all
    columns."""
    dropped: tuple[str, ...] = ()
    """Columns found and not asked for."""

    @property
    def rows(self) -> int:
        return len(self.cells)
