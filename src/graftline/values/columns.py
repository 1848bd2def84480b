"""One batch of raw columns: facts about every value for the rules to judge, the good values in one form, their digests.

Great Expectations judges scalars. An image is a list, so numpy derives scalars from it (its length, its
smallest and largest pixel, how many pixels are missing, ...), one fact a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from graftline.raw.batches import RawBatch
from graftline.values.column import Feature
from graftline.values.contract import Contract
from graftline.values.facts import ColumnBatch

if TYPE_CHECKING:
    import pandas as pd


DECODED_BYTES = 128 << 20
"""How much the pictures or clips of a batch take at most once they are decoded."""


def bounded(batches: Iterable[RawBatch], contract: Contract) -> Iterator[RawBatch]:
    """Yield batches whose values take at most DECODED_BYTES: small files may become large pictures."""
    size = sum(column.decoded_bytes for column in contract.columns.values() if isinstance(column, Feature))
    for batch in batches:
        yield from batch.parts(max(1, DECODED_BYTES // max(1, size)))


def read_columns(batch: RawBatch, contract: Contract) -> dict[str, ColumnBatch]:
    """Return each column of `batch` read as the contract's type.

    Raises:
        InputError: a column of a Parquet file has a type that cannot hold the contract's.
    """
    return {name: column.read_beside(batch, name, contract.columns) for name, column in contract.columns.items()}


def fact_frame(batch: RawBatch, columns: dict[str, ColumnBatch], contract: Contract) -> pd.DataFrame:
    """Return the facts as `column.fact`, by row number; of a row with too few or many cells, only that."""
    import pandas as pd

    index = np.arange(batch.first_row, batch.first_row + batch.rows)
    facts = {f"{name}.{fact}": values for name, column in columns.items() for fact, values in column.facts.items()}
    for name, column in contract.columns.items():
        beside = column.facts_beside(name, columns, contract.features)
        facts |= {f"{name}.{fact}": values for fact, values in beside.items()}
    frame = pd.DataFrame(facts, index=index)
    width = len(contract.columns)
    misfit = batch.cells != width
    if misfit.any():
        for name in frame.columns:
            frame[name] = frame[name].mask(misfit, 1.0 if name.endswith(".given") else None)
    frame["row.cells"] = batch.cells
    return frame


def row_digests(columns: dict[str, pa.Array], contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """Return two (n, 32) uint8 arrays: sha256 of each row's features, and of its features and other columns.

    The former are equal for features that are one value seen twice (`Feature.same`), the latter for equal bytes only.

    Columns are taken in the order of their names, features first. The subject's is left out: ids are few, and trying
    them all against a digest of an otherwise known row would tell whose it is.
    """
    others = sorted(set(contract.columns) - set(contract.features) - {contract.subject})
    cells = {name: contract.columns[name].cells(columns[name]) for name in (*contract.features, *others)}
    seen = sorted(contract.features)
    features = zip(*(cells[name] for name in seen), strict=True)
    same = zip(*(_feature(contract, name).same(columns[name], cells[name]) for name in seen), strict=True)
    rest: Iterable[tuple[bytes, ...]] = zip(*(cells[name] for name in others), strict=True)
    of_features, of_rows = [], []
    for form, row, other in zip(same, features, rest if others else repeat(()), strict=bool(others)):
        sha = hashlib.sha256(b"".join(form))
        of_features.append(sha.digest())
        if form != row:
            sha = hashlib.sha256(b"".join(row))
        sha.update(b"".join(other))
        of_rows.append(sha.digest())
    return _as_array(of_features), _as_array(of_rows)


def loose_digests(columns: dict[str, pa.Array], contract: Contract) -> np.ndarray | None:
    """Return (n, 32) uint8: sha256 of what is left of each row's features to models that do not see all of them.

    None if all see all (`Feature.loose`).
    """
    cells = [_feature(contract, name).loose(columns[name]) for name in sorted(contract.features)]
    given = [one for one in cells if one is not None]
    if len(given) < len(cells):
        return None
    return _as_array([hashlib.sha256(b"".join(row)).digest() for row in zip(*given, strict=True)])


def _feature(contract: Contract, name: str) -> Feature:
    column = contract.columns[name]
    assert isinstance(column, Feature)
    return column


def _as_array(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
