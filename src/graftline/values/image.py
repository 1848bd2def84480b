"""Grey images of one size: a list of pixels, row by row."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup
from PIL import Image as Picture
from pydantic import model_validator

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.values.column import Feature, Question, StoredFeature
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.histograms import Histograms
from graftline.values.rules import Rule, between
from graftline.values.samples import ByClass
from graftline.values.simhash import ImageMeasure

_PIXEL_BINS = 16
_SAMPLED = 2048  # rows that are made up for timing, and
_SAMPLED_PIXELS = 1 << 24  # pixels at most
_SUFFIXES = (".png", ".parquet")
# 16 bits would be clipped and transparency dropped without a word: a confident wrong answer
_PNG_MODES = ("1", "L", "P", "RGB")


class Image(Feature):
    """Grey images of one size: a list of pixels, row by row (in CSV: numbers with spaces between)."""

    type: Literal["image"] = "image"

    shape: tuple[int, int]
    """Height and width in pixels, each from 1 to 4096."""

    min: Literal[0] = 0
    """Smallest pixel value: black is 0."""

    max: float = 255.0
    """Largest pixel value: full brightness."""

    dtype: Literal["uint8", "float32"] = "uint8"
    """How pixels are stored: uint8 takes whole numbers from 0 to 255."""

    plural: ClassVar[str] = "images"
    near: ClassVar[str] = "min_cosine"

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

    def check(self, name: str, contract: Any) -> None:
        if contract.label is None:  # what would be learned from images alone, nothing could measure
            raise ValueError("exactly one column with 'role: label' is needed, found 0")

    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.field("element", pa.from_numpy_dtype(self.dtype)), self.pixels)

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = batch.columns[name]
        pixels = _pixels_of_text(array) if batch.is_text else _pixels_of_list(batch, name, array, self)

        def as_found(position: int) -> str:
            return shorten(str(array[position].as_py()))

        def take(mask: np.ndarray) -> pa.Array:
            values = pixels.values if mask.all() else pixels.values[np.repeat(mask, pixels.lengths)]
            stored = pa.array(values.astype(self.dtype, copy=False))
            return pa.FixedSizeListArray.from_arrays(stored, type=self.arrow_type())

        return ColumnBatch(_pixel_facts(pixels, self), as_found, take)

    def rules(self, name: str) -> list[Rule]:
        height, width = self.shape
        size = f"{height} x {width} pixels"
        rules = [
            between(f"{name}.type", f"{name}.unreadable", 0, 0, "a list of numbers", shows="raw"),
            between(f"{name}.length", f"{name}.length", self.pixels, self.pixels, size),
            between(f"{name}.pixel_nulls", f"{name}.nulls", 0, 0, "no pixel is missing"),
            between(f"{name}.finite", f"{name}.not_finite", 0, 0, "no pixel is NaN or infinite"),
            between(f"{name}.min", f"{name}.min", self.min, None, f"every pixel is at least {self.min:g}"),
            between(f"{name}.max", f"{name}.max", None, self.max, f"every pixel is at most {self.max:g}"),
        ]
        if self.dtype == "uint8":
            rules.append(between(f"{name}.whole", f"{name}.not_whole", 0, 0, "every pixel is a whole number"))
        return rules

    def show(self, value: Any, cell: bytes) -> str:
        return f"sha256 {sha256_bytes(cell)}"

    def histograms(self, name: str) -> ImageHistograms:
        return ImageHistograms(name, self)

    def measure(self, names: Sequence[str], minimum: float) -> ImageMeasure:
        (name,) = names
        return ImageMeasure(name, minimum)

    def near_text(self, minimum: float) -> str:
        return f"images with cosine {minimum:g} or more"

    def samples(self, name: str, label: str | None, classes: tuple[Any, ...]) -> ImageSamples:
        return ImageSamples(name, classes, image=self)

    def stored(self, name: str) -> ImageColumn:
        return ImageColumn(name, self.shape, self.max)

    def from_file(self, path: Path) -> list[int]:
        if path.suffix.lower() != ".png":
            super().from_file(path)
        if self.dtype != "uint8" or self.max != 255:
            raise InputError(path, "a PNG", expected="a JSON object: the task's pixels are no bytes")
        try:
            with Picture.open(path, formats=["PNG"]) as picture:
                if (picture.height, picture.width) != self.shape:
                    raise InputError(path, f"{picture.height} by {picture.width} pixels", expected=f"{self.shape}")
                return [int(pixel) for pixel in np.asarray(picture.convert("L")).reshape(-1)]
        except (OSError, SyntaxError, ValueError, Picture.DecompressionBombError) as error:
            raise InputError(path, f"not a readable PNG ({error})", fix="save it again as PNG") from None


class ImageHistograms(Histograms):
    """Mean, deviation and values of pixels."""

    def __init__(self, name: str, image: Image) -> None:
        super().__init__()
        self._name = name
        self.intervals(f"{name}.mean", image.min, image.max)
        self.intervals(f"{name}.deviation", 0.0, (image.max - image.min) / 2)
        self.intervals(f"{name}.pixels", image.min, image.max, _PIXEL_BINS)

    def add(self, values: pa.Array) -> None:
        pixels = values.flatten().to_numpy().reshape(len(values), -1)
        for start in range(0, len(pixels), 4096):
            chunk = pixels[start : start + 4096]
            # Integers are summed exactly, so that the counts do not depend on the machine.
            numbers = chunk.astype(np.int64 if chunk.dtype == np.uint8 else np.float64)
            mean = numbers.sum(axis=1) / chunk.shape[1]
            square = np.einsum("ij,ij->i", numbers, numbers) / chunk.shape[1]
            self.count(f"{self._name}.mean", mean)
            self.count(f"{self._name}.deviation", np.sqrt(np.maximum(square - mean**2, 0.0)))
            if chunk.dtype == np.uint8:
                counts = np.bincount(chunk.reshape(-1), minlength=256)
                self.count(f"{self._name}.pixels", np.arange(256), counts)
            else:
                self.count(f"{self._name}.pixels", numbers.reshape(-1))


@dataclass(kw_only=True)
class ImageSamples(ByClass):
    """Small pictures."""

    image: Image

    each: ClassVar[int] = 10
    most_classes: ClassVar[int] = 20

    def html(self) -> Markup:
        line = Markup("<div>{}</div><div>{}</div>\n")
        rows = (line.format(name, self._pictures(name, kept)) for name, kept in self.rows())
        return Markup('<div class="samples">\n{}</div>').format(Markup("").join(rows))

    def _pictures(self, name: str, kept: list[Any]) -> Markup:
        one = Markup('<img src="{}" alt="class {}">')
        return Markup("").join(one.format(self._png(np.array(pixels)), name) for pixels in kept)

    def _png(self, pixels: np.ndarray) -> str:
        """Return the image as a data URI."""
        grey = (pixels.astype(np.float64) - self.image.min) / (self.image.max - self.image.min) * 255
        file = io.BytesIO()
        Picture.fromarray(np.rint(grey).astype(np.uint8).reshape(self.image.shape)).save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class ImageColumn(StoredFeature):
    """A column of grey images, stored as a fixed-size list of pixels."""

    shape: tuple[int, int]
    """Height and width, in pixels."""
    maximum: float
    """The pixel value of full brightness."""

    type: ClassVar[str] = "image"
    plural: ClassVar[str] = "images"

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"shape": list(self.shape), "maximum": self.maximum}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImageColumn:
        height, width = values["shape"]
        return cls(values["name"], (height, width), values["maximum"])

    def values(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return (n, height, width) float32 from 0 to 1."""
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        pixels: np.ndarray = flat.astype(np.float32) / np.float32(self.maximum)
        return pixels.reshape(-1, *self.shape)

    def croissant(self) -> dict[str, Any]:
        whole = float(self.maximum).is_integer() and self.maximum > 1
        height, width = self.shape
        return {
            "dataType": "sc:Integer" if whole else "sc:Float",
            "isArray": True,
            "arrayShape": str(height * width),
            "description": f"{height} x {width} pixels, row by row; {self.maximum:g} is full brightness.",
        }

    def invented(self) -> pa.Array:
        size = self.shape[0] * self.shape[1]
        rows = max(64, min(_SAMPLED, _SAMPLED_PIXELS // size))
        pixels = np.random.default_rng(0).uniform(0, self.maximum, rows * size).astype(np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(pixels), size)

    def question(self, where: str, value: Any) -> np.ndarray:
        try:
            flat = np.array(value, np.float32)
        except (TypeError, ValueError):
            flat = np.empty(0, np.float32)
        if flat.shape != (self.shape[0] * self.shape[1],) or not ((flat >= 0) & (flat <= self.maximum)).all():
            raise InputError(
                where,
                f"'{self.name}' is no such image",
                expected=f"a list of {self.shape[0] * self.shape[1]} numbers from 0 to {self.maximum:g}",
            )
        return flat.reshape(self.shape) / np.float32(self.maximum)

    def questions(self, paths: list[Path], texts: list[str]) -> list[Question]:
        if texts:
            raise InputError("--text", "a text", expected="images", fix="this release is asked about images")
        found = [question for path in paths for question in self._in(path)]
        if not found:
            where = ", ".join(map(str, paths)) or "the command line"
            raise InputError(where, "no images", expected="PNG or Parquet files")
        return found

    def _in(self, path: Path) -> Iterator[Question]:
        """Yield the images in a file or, by name, in a folder's files. Raises InputError."""
        if path.is_dir():
            for inner in sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES):
                yield from self._in(inner)
        elif not path.exists():
            raise InputError(path, "no such file or folder", fix="check the path")
        elif path.suffix.lower() == ".png":
            yield Question(str(path), self._of_png(path))
        elif path.suffix.lower() == ".parquet":
            yield from self._of_parquet(path)
        else:
            raise InputError(path, f"a file of type '{path.suffix}'", expected="a PNG or Parquet file, or a folder")

    def _of_png(self, path: Path) -> np.ndarray:
        """Return a PNG as grey pixels from 0 to 1. Raises InputError if it is damaged or of another size."""
        try:
            with Picture.open(path, formats=["PNG"]) as picture:
                size = (picture.height, picture.width)
                if size != self.shape:
                    raise InputError(
                        path,
                        f"{size[0]} by {size[1]} pixels",
                        expected=f"{self.shape[0]} by {self.shape[1]}",
                        fix="scale the image as the training data was",
                    )
                if picture.mode not in _PNG_MODES or "transparency" in picture.info:
                    kind = "transparent" if "transparency" in picture.info else f"of mode {picture.mode}"
                    raise InputError(
                        path, f"a PNG {kind}", expected="8 bits a channel, grey or colour, not transparent"
                    )
                grey = np.asarray(picture.convert("L"), dtype=np.float32)
        except (OSError, SyntaxError, ValueError, Picture.DecompressionBombError) as error:
            raise InputError(path, f"not a readable PNG ({error})", fix="save it again as PNG") from None
        return grey / np.float32(255)

    def _of_parquet(self, path: Path) -> Iterator[Question]:
        """Yield the rows of a Parquet file with this column. Raises InputError."""
        name, (height, width) = self.name, self.shape
        try:
            table = pq.read_table(path, columns=[name])
            lists = table[name].combine_chunks()
            flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        except (pa.ArrowException, KeyError, OSError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(path, reason, expected=f"Parquet with a list column '{name}' of numbers") from None
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        if len(wrong := np.flatnonzero(lengths != height * width)):
            raise InputError(
                f"{path}: row {wrong[0]}",
                f"column '{name}' has {lengths[wrong[0]]} pixels",
                expected=f"{height * width} a row",
            )
        if not (np.isfinite(flat).all() and (flat >= 0).all() and (flat <= self.maximum).all()):
            raise InputError(path, f"column '{name}' has values outside the range", expected=f"0 to {self.maximum:g}")
        for row, pixels in enumerate((flat / np.float32(self.maximum)).reshape(-1, height, width)):
            yield Question(f"{path}#{row}", pixels)


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

    texts = array.to_pylist()
    rows, unreadable = [], np.zeros(len(texts), bool)
    for position, text in enumerate(texts):
        try:
            if text is not None and ("_" in text or not text.isascii()):  # float() takes 1_0 and digits of any script
                raise ValueError
            rows.append(np.array([float(pixel) for pixel in (text or "").split()], np.float64))
        except ValueError:
            unreadable[position] = True
            rows.append(np.empty(0, np.float64))
    lengths = np.array([len(row) for row in rows], np.int64)
    given = np.array([text is not None for text in texts])
    values = np.concatenate(rows) if rows else np.empty(0)
    return _Pixels(lengths, values, None, given, unreadable)


def _pixels_of_list(batch: RawBatch, name: str, array: pa.Array, image: Image) -> _Pixels:
    kind = array.type
    if pa.types.is_null(kind):
        array = array.cast(pa.list_(pa.uint8()))
    elif not (
        (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
        and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
    ):
        raise wrong_type(batch, name, kind, f"a list of {image.pixels} numbers")
    given = array.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = array.flatten()  # without the places of missing rows
    missing = flat.is_null().to_numpy(zero_copy_only=False) if flat.null_count else None
    values = flat.to_numpy(zero_copy_only=False)
    return _Pixels(lengths, values, missing, given, np.zeros(len(array), bool))


def _pixel_facts(pixels: _Pixels, image: Image) -> dict[str, Any]:
    n, size = len(pixels.lengths), image.pixels
    zeros = np.zeros(n, np.int64)
    facts: dict[str, Any] = {
        "given": np.where(pixels.given, 1.0, np.nan),
        "unreadable": pixels.unreadable.astype(np.int64),
        "length": np.where(pixels.given & ~pixels.unreadable, pixels.lengths, np.nan),
        "nulls": zeros,
        "not_finite": zeros,
        "not_whole": zeros,
    }
    if np.issubdtype(pixels.values.dtype, np.integer) and (pixels.lengths == size).all():
        square = pixels.values.reshape(n, size)
        return facts | {"min": square.min(axis=1), "max": square.max(axis=1)}
    return facts | _ragged_facts(pixels)


def _ragged_facts(pixels: _Pixels) -> dict[str, Any]:
    """Return the facts of rows that may differ in length and hold NaN, infinity or missing pixels."""

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
