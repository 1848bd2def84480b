"""One batch of raw columns: facts about every value for the rules to judge, and the good values in one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graftline.tables import RawBatch
from graftline.values.contract import Contract
from graftline.values.facts import ColumnBatch
from graftline.values.tags import Tags

if TYPE_CHECKING:
    import pandas as pd


def read_columns(batch: RawBatch, contract: Contract) -> dict[str, ColumnBatch]:
    """Return each column of `batch` read as the contract's type.

    Raises:
        InputError: a column of a Parquet file has a type that cannot hold the contract's.
    """
    return {name: column.read(batch, name) for name, column in contract.columns.items()}


def fact_frame(batch: RawBatch, columns: dict[str, ColumnBatch], contract: Contract) -> pd.DataFrame:
    """Return the facts as `column.fact`, by row number; of a row with too few or many cells, only that."""
    import numpy as np
    import pandas as pd

    index = np.arange(batch.first_row, batch.first_row + batch.rows)
    facts = {
        f"{name}.{fact}": values for name, column in columns.items() for fact, values in column.facts.items()
    }
    facts |= _tag_facts(columns, contract)
    frame = pd.DataFrame(facts, index=index)
    width = len(contract.columns)
    misfit = batch.cells != width
    if misfit.any():
        for name in frame.columns:
            frame[name] = frame[name].mask(misfit, 1.0 if name.endswith(".given") else None)
    frame["row.cells"] = batch.cells
    return frame


def _tag_facts(columns: dict[str, ColumnBatch], contract: Contract) -> dict[str, Any]:
    """Return how many tags more than words each row has; NaN where either is missing."""
    if contract.label is None or not isinstance(contract.label[1], Tags):
        return {}
    name = contract.label[0]
    more = columns[name].facts["length"] - columns[contract.feature[0]].facts["length"]
    return {f"{name}.more_than_words": more}
