"""One batch of raw columns: facts about every value for the rules to judge, and the good values in one form.

Great Expectations judges scalars. An image is a list, so numpy derives scalars from it (its length, its
smallest and largest pixel, how many pixels are missing, ...), one fact a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.tables import RawBatch
from graftline.values.contract import (
    Column,
    Contract,
    Float,
    Image,
    Integer,
    String,
    Tags,
    Text,
    Tokens,
)
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.text import read_text, read_words

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


def output_type(column: Column) -> pa.DataType:
    """Return the Arrow type of a column of the dataset."""
    import pyarrow as pa

    if isinstance(column, Image):
        return pa.list_(pa.field("element", pa.from_numpy_dtype(column.dtype)), column.pixels)
    if isinstance(column, Tokens | Tags):
        return pa.list_(pa.string())
    kinds = {"integer": pa.int64(), "float": pa.float64(), "string": pa.string(), "text": pa.string()}
    return kinds[column.type]


def read_columns(batch: RawBatch, contract: Contract) -> dict[str, ColumnBatch]:
    """Return each column of `batch` read as the contract's type.

    Raises:
        InputError: a column of a Parquet file has a type that cannot hold the contract's.
    """
    found = {}
    for name, column in contract.columns.items():
        if isinstance(column, Image):
            found[name] = _read_image(batch, name, column)
        elif isinstance(column, Text):
            found[name] = read_text(batch, name)
        elif isinstance(column, Tokens | Tags):
            found[name] = read_words(batch, name, column)
        else:
            found[name] = _read_scalar(batch, name, column)
    return found


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


# Images


@dataclass(frozen=True)
class _Pixels:
    """The pixels of a batch, end to end."""

    lengths: np.ndarray
    """(n,), int64: how many pixels each row has; 0 for a missing image."""
    values: np.ndarray
    """(sum of lengths,): the source's number type; NaN for a missing pixel."""
    missing: np.ndarray | None
    """Like values, bool: which pixels are missing; None for none."""
    given: np.ndarray
    """(n,), bool: which rows have an image."""
    unreadable: np.ndarray
    """(n,), bool: which rows have text that is no list of numbers."""


def _read_image(batch: RawBatch, name: str, column: Image) -> ColumnBatch:
    import numpy as np

    array = batch.columns[name]
    pixels = _pixels_of_text(array) if batch.is_text else _pixels_of_list(batch, name, array, column)

    def as_found(position: int) -> str:
        return shorten(str(array[position].as_py()))

    def take(mask: np.ndarray) -> pa.Array:
        import pyarrow as pa

        values = pixels.values if mask.all() else pixels.values[np.repeat(mask, pixels.lengths)]
        stored = pa.array(values.astype(column.dtype, copy=False))
        return pa.FixedSizeListArray.from_arrays(stored, type=output_type(column))

    return ColumnBatch(_pixel_facts(pixels, column), as_found, take)


def _pixels_of_text(array: pa.Array) -> _Pixels:
    """Parse `0 12 255 ...`; a cell with anything but ASCII numbers in it is unreadable."""
    import numpy as np

    texts = array.to_pylist()
    rows, unreadable = [], np.zeros(len(texts), bool)
    for position, text in enumerate(texts):
        try:
            if text is not None and (
                "_" in text or not text.isascii()
            ):  # float() takes 1_0 and digits of any script
                raise ValueError
            rows.append(np.array([float(pixel) for pixel in (text or "").split()], np.float64))
        except ValueError:
            unreadable[position] = True
            rows.append(np.empty(0, np.float64))
    lengths = np.array([len(row) for row in rows], np.int64)
    given = np.array([text is not None for text in texts])
    values = np.concatenate(rows) if rows else np.empty(0)
    return _Pixels(lengths, values, None, given, unreadable)


def _pixels_of_list(batch: RawBatch, name: str, array: pa.Array, column: Image) -> _Pixels:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_null(kind):
        array = array.cast(pa.list_(pa.uint8()))
    elif not (
        (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
        and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
    ):
        raise wrong_type(batch, name, kind, f"a list of {column.pixels} numbers")
    given = array.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = array.flatten()  # without the places of missing rows
    missing = flat.is_null().to_numpy(zero_copy_only=False) if flat.null_count else None
    values = flat.to_numpy(zero_copy_only=False)
    return _Pixels(lengths, values, missing, given, np.zeros(len(array), bool))


def _pixel_facts(pixels: _Pixels, column: Image) -> dict[str, Any]:
    import numpy as np

    n, size = len(pixels.lengths), column.pixels
    zeros = np.zeros(n, np.int64)
    facts: dict[str, Any] = {
        "given": np.where(pixels.given, 1.0, np.nan),
        "unreadable": pixels.unreadable.astype(np.int64),
        "length": np.where(pixels.given & ~pixels.unreadable, pixels.lengths, np.nan),
        "nulls": zeros, "not_finite": zeros, "not_whole": zeros,
    }  # fmt: skip
    if np.issubdtype(pixels.values.dtype, np.integer) and (pixels.lengths == size).all():
        square = pixels.values.reshape(n, size)
        return facts | {"min": square.min(axis=1), "max": square.max(axis=1)}
    return facts | _ragged_facts(pixels)


def _ragged_facts(pixels: _Pixels) -> dict[str, Any]:
    """Return the facts of rows that may differ in length and hold NaN, infinity or missing pixels."""
    import numpy as np

    n, values = len(pixels.lengths), pixels.values.astype(np.float64, copy=False)
    facts = {name: np.zeros(n, np.int64) for name in ("nulls", "not_finite", "not_whole")}
    facts |= {name: np.full(n, np.nan) for name in ("min", "max")}
    some = np.flatnonzero(pixels.lengths)
    if not len(some):
        return facts
    starts = (np.cumsum(pixels.lengths) - pixels.lengths)[some]
    missing = np.zeros(len(values), bool) if pixels.missing is None else pixels.missing
    finite = np.isfinite(values)

    def count(mask: np.ndarray) -> np.ndarray:
        counted: np.ndarray = np.add.reduceat(mask, starts, dtype=np.int64)
        return counted

    facts["nulls"][some] = count(missing)
    facts["not_finite"][some] = count(~finite & ~missing)
    facts["not_whole"][some] = count(finite & (np.floor(values) != values))
    low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
    facts["min"][some] = np.where(np.isfinite(low), low, np.nan)
    facts["max"][some] = np.where(np.isfinite(high), high, np.nan)
    return facts


# Scalars


def _read_scalar(batch: RawBatch, name: str, column: Integer | Float | String) -> ColumnBatch:
    import numpy as np

    array = batch.columns[name]
    given = array.is_valid().to_numpy(zero_copy_only=False)
    typed, unreadable = _typed(batch, name, array, column)
    facts: dict[str, Any] = {
        "given": np.where(given, 1.0, np.nan),
        "unreadable": unreadable.astype(np.int64),
        **_scalar_facts(typed, column),
    }

    def as_found(position: int) -> str:
        return shorten(str(array[position].as_py()))

    def take(mask: np.ndarray) -> pa.Array:
        import pyarrow as pa

        return typed.filter(pa.array(mask))

    return ColumnBatch(facts, as_found, take)


def _scalar_facts(typed: pa.Array, column: Integer | Float | String) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc

    if isinstance(column, Integer):
        # Integers with missing values keep all 64 bits in pandas' own type only. Not a Series: it has an
        # index, and a frame of a later batch would look its values up by row number.
        series = typed.to_pandas(types_mapper=_nullable if typed.null_count else None)
        return {"value": series.array}
    if isinstance(column, Float):
        values = typed.to_numpy(zero_copy_only=False)
        valid = typed.is_valid().to_numpy(zero_copy_only=False)
        finite = np.isfinite(values)
        return {"value": np.where(finite, values, np.nan), "not_finite": (valid & ~finite).astype(np.int64)}
    facts: dict[str, Any] = {}
    if column.max_length is not None:
        facts["length"] = pc.utf8_length(typed).to_numpy(zero_copy_only=False)
    if column.classes is not None or column.role == "split":
        facts["value"] = np.array(typed.to_pylist(), object)
    return facts


def _nullable(kind: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow as pa

    return pd.Int64Dtype() if kind == pa.int64() else None


def _typed(
    batch: RawBatch, name: str, array: pa.Array, column: Integer | Float | String
) -> tuple[pa.Array, np.ndarray]:
    """Return the column in the output's type, null where it cannot be read so, and where that is.

    Raises:
        InputError: the Arrow type cannot hold such values at all.
    """
    import numpy as np
    import pyarrow as pa

    kind, wanted = array.type, output_type(column)
    if pa.types.is_null(kind):
        return array.cast(wanted), np.zeros(len(array), bool)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (text if isinstance(column, String) or batch.is_text else number):
        raise wrong_type(batch, name, kind, f"{column.type} ({wanted})")
    if isinstance(column, Float) and pa.types.is_floating(kind):
        return array.cast(wanted), np.zeros(len(array), bool)
    try:
        if not (
            batch.is_text and isinstance(column, Float)
        ):  # Arrow takes other spellings of floats than Python
            return array.cast(wanted), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        pass
    parse: Callable[[Any], Any] = _integer if isinstance(column, Integer) else _float
    unreadable = np.zeros(len(array), bool)
    values: list[Any] = []
    for position, value in enumerate(array.to_pylist()):
        try:
            values.append(None if value is None else parse(value))
        except (ValueError, OverflowError):
            unreadable[position] = True
            values.append(None)
    return pa.array(values, wanted), unreadable


def _integer(value: str | int | float) -> int:
    """Return a 64-bit whole number; 3.0 is one, since pandas writes integers so where some are missing."""
    whole = value if isinstance(value, int) else _float(value)
    if isinstance(value, str) and "." not in value and "e" not in value.lower():
        whole = int(value)
    if whole != int(whole) or not -(2**63) <= whole < 2**63:
        raise ValueError(value)
    return int(whole)


def _float(value: str | float) -> float:
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(value)
    return float(value)
