"""Grey images of one size.

Great Expectations judges scalars. An image is a list, so numpy derives scalars from it (its length, its
smallest and largest pixel, how many pixels are missing, ...), one fact a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from graftline.dataset import ImageColumn
from graftline.tables import RawBatch
from graftline.values.column import Column, Nearness
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.rules import Rule, between

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Image(Column):
    """Grey images of one size: a list of pixels, row by row (in CSV: numbers with spaces between)."""

    type: Literal["image"] = "image"

    role: Literal["feature", "label", "split", "metadata"] = "feature"
    """An image is what the model sees."""

    shape: tuple[int, int]
    """Height and width in pixels, each from 1 to 4096."""

    min: Literal[0] = 0
    """Smallest pixel value: black is 0."""

    max: float = 255.0
    """Largest pixel value: full brightness."""

    dtype: Literal["uint8", "float32"] = "uint8"
    """How pixels are stored: uint8 takes whole numbers from 0 to 255."""

    nearness: ClassVar[Nearness] = "min_cosine"

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(1 <= side <= 4096 for side in self.shape):
            raise ValueError("height and width must lie between 1 and 4096")
        if self.max <= 0:
            raise ValueError("max must be above 0")
        if self.dtype == "uint8" and self.max > 255:
            raise ValueError("uint8 pixels lie between 0 and 255: change max, or the dtype to float32")
        return self

    def as_feature(self, name: str) -> ImageColumn:
        return ImageColumn(name, self.shape, self.max)

    def output_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.field("element", pa.from_numpy_dtype(self.dtype)), self.pixels)

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        import numpy as np

        array = batch.columns[name]
        pixels = _pixels_of_text(array) if batch.is_text else _pixels_of_list(batch, name, array, self)

        def as_found(position: int) -> str:
            return shorten(str(array[position].as_py()))

        def take(mask: np.ndarray) -> pa.Array:
            import pyarrow as pa

            values = pixels.values if mask.all() else pixels.values[np.repeat(mask, pixels.lengths)]
            stored = pa.array(values.astype(self.dtype, copy=False))
            return pa.FixedSizeListArray.from_arrays(stored, type=self.output_type())

        return ColumnBatch(_pixel_facts(pixels, self), as_found, take)

    def rules(self, name: str) -> list[Rule]:
        height, width = self.shape
        rules = [
            between(f"{name}.type", f"{name}.unreadable", 0, 0, "a list of numbers", shows="raw"),
            between(
                f"{name}.length", f"{name}.length", self.pixels, self.pixels, f"{height} x {width} pixels"
            ),
            between(f"{name}.pixel_nulls", f"{name}.nulls", 0, 0, "no pixel is missing"),
            between(f"{name}.finite", f"{name}.not_finite", 0, 0, "no pixel is NaN or infinite"),
            between(f"{name}.min", f"{name}.min", self.min, None, f"every pixel is at least {self.min:g}"),
            between(f"{name}.max", f"{name}.max", None, self.max, f"every pixel is at most {self.max:g}"),
        ]
        if self.dtype == "uint8":
            rules.append(between(f"{name}.whole", f"{name}.not_whole", 0, 0, "every pixel is a whole number"))
        return rules


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
