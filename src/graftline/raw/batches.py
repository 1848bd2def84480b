"""What every format is read as: batches of rows, bounded in rows and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from graftline.values.decoding import Decoded


class LeftOut(NamedTuple):
    """Something that was passed over."""

    name: str
    why: str


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

    decoded: Mapping[str, Decoded] = field(default_factory=dict)
    """Columns of encoded pictures whose pixels are known by now."""
    files: Sequence[str | None] = ()
    """Where rows are files of their own, the path of each within the folder."""
    left_out: tuple[LeftOut, ...] = ()
    """What was passed over since the batch before."""

    @property
    def rows(self) -> int:
        return len(self.cells)

    def parts(self, rows: int) -> Iterator[RawBatch]:
        """Yield the batch in parts of at most so many rows; of what was passed over the first tells."""
        if self.rows <= rows:
            yield self
            return
        for start in range(0, self.rows, rows):
            end = start + rows
            yield replace(
                self,
                first_row=self.first_row + start,
                columns={name: array.slice(start, rows) for name, array in self.columns.items()},
                cells=self.cells[start:end],
                files=self.files[start:end],
                left_out=() if start else self.left_out,
            )
