"""Images of one size, grey or in colour: encoded pictures (JPEG, PNG, ...), or lists of pixels, row by row."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from PIL import Image as Picture
from PIL import ImageDraw
from pydantic import model_validator

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.picture_formats import FORMATS, MAX_BYTES, SUFFIXES
from graftline.values.column import Feature, Questions, StoredFeature
from graftline.values.corruption import OF_PICTURES, Corruption
from graftline.values.decoding import CHANGES, BadPictureError, Mode, Resize, Rule, decode, decode_all
from graftline.values.encoded import encoded, files_of, given
from graftline.values.facts import ColumnBatch, shorten, wrong_type
from graftline.values.histograms import Histograms
from graftline.values.identity import TRAIN
from graftline.values.image_arrays import flattened, is_list
from graftline.values.image_questions import image_questions
from graftline.values.pixels import Pixels, pixel_file
from graftline.values.rules import Rule as Check
from graftline.values.rules import between
from graftline.values.samples import UNSORTED, ByClass
from graftline.values.simhash import ImageMeasure
from graftline.values.strings import lengths_of

_PIXEL_BINS = 16
_OUTLINED, _OUTLINE = 256, (224, 60, 49)  # pixels of a picture's side with outlines, and their colour
_SAMPLED = 2048  # rows that are made up for timing, and
_SAMPLED_PIXELS = 1 << 24  # pixels at most


class Image(Feature):
    """Images of one size: pictures (JPEG, PNG, WebP, TIFF, BMP, GIF), or lists of pixels, row by row.

    A picture is a file of a folder, or bytes in Parquet, also as `{bytes, path}`. In CSV a list of pixels is numbers
    with spaces between. docs/data.md says how a picture becomes pixels.
    """

    type: Literal["image"] = "image"

    shape: tuple[int, int]
    """Height and width in pixels, each from 1 to 4096."""

    mode: Mode = "grey"
    """grey: one number a pixel. rgb: three, red, green and blue, in a list of pixels one after the other."""

    resize: Resize = "refuse"
    """What a picture of another size becomes. refuse: it goes to the quarantine. crop: scaled until it covers the
    size, and cut evenly. pad: scaled until it fits, and filled with black. stretch: height and width each by itself."""

    min: Literal[0] = 0
    """Smallest pixel value: black is 0."""

    max: float = 255.0
    """Largest pixel value: full brightness."""

    dtype: Literal["uint8", "float32"] = "uint8"
    """How pixels are stored: uint8 takes whole numbers from 0 to 255."""

    changes: ClassVar[Mapping[str, str]] = CHANGES
    plural: ClassVar[str] = "images"
    near: ClassVar[str] = "min_cosine"

    @property
    def rule(self) -> Rule:
        """What a picture becomes."""
        return Rule(*self.shape, self.mode, self.resize)

    @property
    def pixels(self) -> int:
        """How many numbers an image is."""
        return self.shape[0] * self.shape[1] * self.rule.channels

    @property
    def decoded_bytes(self) -> int:
        return self.pixels

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
        if encoded(array.type):
            return self._read_pictures(batch, name, array)
        pixels = _pixels_of_text(array) if batch.is_text else _pixels_of_list(batch, name, array, self)

        def as_found(position: int) -> str:
            return shorten(str(array[position].as_py()))

        def take(mask: np.ndarray) -> pa.Array:
            values = pixels.values if mask.all() else pixels.values[np.repeat(mask, pixels.lengths)]
            stored = pa.array(values.astype(self.dtype, copy=False))
            return pa.FixedSizeListArray.from_arrays(stored, type=self.arrow_type())

        return ColumnBatch(_pixel_facts(pixels, self), as_found, take)

    def check_pictures(self, where: str) -> None:
        """Raise InputError unless pixels are stored as pictures hold them."""
        if self.dtype != "uint8" or self.max != 255:
            raise InputError(
                where,
                "encoded pictures",
                expected="dtype uint8 and max 255",
                fix="leave dtype and max out of the contract",
            )

    def _read_pictures(self, batch: RawBatch, name: str, array: pa.Array) -> ColumnBatch:
        self.check_pictures(f"{batch.file}: column '{name}'")
        decoded = batch.decoded.get(name) or decode_all(files_of(array), self.rule)
        there = given(array)
        good = there.copy()
        good[list(decoded.bad)] = False
        zeros = np.zeros(len(array), np.int64)
        facts = {
            "given": np.where(there, 1.0, np.nan),
            "unreadable": (there & ~good).astype(np.int64),
            "length": np.where(good, self.pixels, np.nan),
            "nulls": zeros,
            "not_finite": zeros,
            "not_whole": zeros,
            "min": np.where(good, 0.0, np.nan),
            "max": np.where(good, 255.0, np.nan),
        }

        def as_found(position: int) -> str:
            (_, path), why = files_of(array.slice(position, 1))[0], decoded.bad.get(position, "a picture")
            return why if path is None else f"{why}: {path}"

        def take(mask: np.ndarray) -> pa.Array:
            kept = decoded.pixels if mask.all() else decoded.pixels[mask]
            return pa.FixedSizeListArray.from_arrays(pa.array(kept.reshape(-1)), type=self.arrow_type())

        return ColumnBatch(facts, as_found, take, decoded.changes)

    def rules(self, name: str) -> list[Check]:
        size = " x ".join(map(str, self.rule.shape if self.mode == "rgb" else self.shape)) + " pixels"
        of_lists = not self.model_fields_set & {"mode", "resize"}  # what only pictures need
        readable = "a list of numbers" if of_lists else "a picture, or a list of numbers"
        rules = [
            between(f"{name}.type", f"{name}.unreadable", 0, 0, readable, shows="raw"),
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
        return ImageSamples(name, classes, image=self, label=label)

    def stored(self, name: str) -> ImageColumn:
        return ImageColumn(name, self.shape, self.max, self.rule.channels, self.resize)

    def from_file(self, path: Path) -> list[int]:
        if path.suffix.lower() not in SUFFIXES:
            super().from_file(path)
        self.check_pictures(str(path))
        return [int(pixel) for pixel in _decoded_file(path, self.rule)[0].reshape(-1)]


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
    """Small pictures; where the label is boxes, with their outlines."""

    image: Image
    label: str | None = None

    each: ClassVar[int] = 10
    most_classes: ClassVar[int] = 20

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        objects = columns.get(self.label or "")
        if objects is None or not (pa.types.is_struct(objects.type) and objects.type.get_field_index("box") >= 0):
            super().add(columns, labels, splits)
            return
        kept = self.kept.setdefault(-1, [])
        for place in np.flatnonzero(splits == TRAIN)[: UNSORTED - len(kept)].tolist():
            kept.append((columns[self.name][place].as_py(), objects[place].as_py()))

    def html(self) -> Markup:
        return self.figures(self._pictures)

    def _pictures(self, name: str, kept: list[Any]) -> Markup:
        one, outlined = (
            Markup('<img src="{}" alt="class {}">'),
            Markup('<img style="width:auto;height:auto" src="{}" title="{}">'),
        )
        if name or not kept or not isinstance(kept[0], tuple):
            return Markup("").join(one.format(self._png(np.array(pixels)), name) for pixels in kept)
        return Markup("").join(
            outlined.format(self._png(np.array(pixels), objects["box"]), ", ".join(objects["class"]))
            for pixels, objects in kept
        )

    def _png(self, pixels: np.ndarray, boxes: Sequence[Sequence[float]] | None = None) -> str:
        """Return the image as a data URI; with boxes it is larger and in colour, and they are drawn."""
        bright = (pixels.astype(np.float64) - self.image.min) / (self.image.max - self.image.min) * 255
        shape = self.image.rule.shape if self.image.mode == "rgb" else self.image.shape
        file, picture = io.BytesIO(), Picture.fromarray(np.rint(bright).astype(np.uint8).reshape(shape))
        if boxes is not None:
            times = max(1, _OUTLINED // max(picture.size))
            picture = picture.convert("RGB").resize((picture.width * times, picture.height * times), 0)
            pen = ImageDraw.Draw(picture)
            for x0, y0, x1, y1 in boxes:
                pen.rectangle([times * x0, times * y0, times * x1 - 1, times * y1 - 1], outline=_OUTLINE)
        picture.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class ImageColumn(StoredFeature):
    """A column of images: fixed-size lists of pixels, or the places of pixels in a file beside the Parquet files."""

    shape: tuple[int, int]
    """Height and width, in pixels."""
    maximum: float
    """The pixel value of full brightness."""
    channels: int = 1
    """1: grey; 3: red, green and blue."""
    resize: Resize = "refuse"
    """What a picture of another size becomes that the model is asked about: as in training."""
    in_file: bool = False
    """Whether pixels stand in a file of their own (values/pixels.py)."""

    type: ClassVar[str] = "image"
    plural: ClassVar[str] = "images"
    corruptions: ClassVar[tuple[str, ...]] = OF_PICTURES

    @property
    def size(self) -> int:
        """How many numbers an image is."""
        return self.shape[0] * self.shape[1] * self.channels

    @property
    def rule(self) -> Rule:
        """What a picture becomes that the model is asked about."""
        return Rule(*self.shape, "rgb" if self.channels == 3 else "grey", self.resize)

    def as_dict(self) -> dict[str, Any]:
        usual = {"channels": 1, "resize": "refuse", "in_file": False}
        more = {key: value for key in usual if (value := getattr(self, key)) != usual[key]}
        return super().as_dict() | {"shape": list(self.shape), "maximum": self.maximum, **more}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImageColumn:
        height, width = values["shape"]
        more = {key: values[key] for key in ("channels", "resize", "in_file") if key in values}
        return cls(values["name"], (height, width), values["maximum"], **more)

    def in_a_file(self) -> ImageColumn:
        return replace(self, in_file=True)

    def values(self, column: pa.ChunkedArray) -> Pixels:
        flat: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return Pixels.of(flat.reshape(-1, *self.rule.shape), self.maximum)

    def opened(self, column: pa.ChunkedArray, dataset: Path) -> Pixels:
        if not self.in_file:
            return self.values(column)
        return Pixels.in_file(dataset / pixel_file(self.name), column.to_numpy(), self.rule.shape)

    def corrupted(
        self, column: pa.ChunkedArray, dataset: Path, rows: np.ndarray, by: Corruption
    ) -> tuple[ImageColumn, pa.Array]:
        """Spoil images; their pixels then stand in the Parquet file."""
        from graftline.values.corruptions import pictures

        images = self.opened(column, dataset)
        spoiled = np.empty((len(images), self.size), images.stored.dtype)
        for place, draw in enumerate(by.draws(rows)):
            picture = images[place : place + 1][0].transpose(1, 2, 0).astype(np.float64)
            bright = pictures.spoil(by.name, picture, draw, by.level).reshape(-1) * images.maximum
            spoiled[place] = np.rint(bright) if spoiled.dtype == np.uint8 else bright
        flat = pa.FixedSizeListArray.from_arrays(pa.array(spoiled.reshape(-1)), self.size)
        return replace(self, in_file=False), flat

    def croissant(self) -> dict[str, Any]:
        height, width, channels = self.rule.shape
        depth = " x 3 (red, green, blue)" if channels == 3 else ""
        if self.in_file:
            return {
                "dataType": "sc:Integer",
                "description": f"The place of the image in {pixel_file(self.name)}: a NumPy array of "
                f"{height} x {width}{depth} pixels an image; {self.maximum:g} is full brightness.",
            }
        whole = float(self.maximum).is_integer() and self.maximum > 1
        return {
            "dataType": "sc:Integer" if whole else "sc:Float",
            "isArray": True,
            "arrayShape": str(self.size),
            "description": f"{height} x {width}{depth} pixels, row by row; {self.maximum:g} is full brightness.",
        }

    def invented(self) -> pa.Array:
        size = self.size
        rows = max(64, min(_SAMPLED, _SAMPLED_PIXELS // size))
        pixels = np.random.default_rng(0).uniform(0, self.maximum, rows * size).astype(np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(pixels), size)

    def question(self, where: str, value: Any) -> np.ndarray:
        size = self.size
        try:
            flat = np.array(value, np.float32).reshape(-1)
        except (TypeError, ValueError):
            flat = np.empty(0, np.float32)
        if flat.shape != (size,) or not ((flat >= 0) & (flat <= self.maximum)).all():
            raise InputError(
                where,
                f"'{self.name}' is no such image",
                expected=f"a list of {size} numbers from 0 to {self.maximum:g}",
            )
        image: np.ndarray = Pixels.of(flat.reshape(1, *self.rule.shape), self.maximum).numpy()[0]
        return image

    def questions(self, paths: list[Path], texts: list[str]) -> Questions:
        if texts:
            raise InputError("--text", "a text", expected="images", fix="this release is asked about images")
        return image_questions(self, paths)


def _decoded_file(path: Path, rule: Rule) -> tuple[np.ndarray, list[str]]:
    """Return the pixels in a file, and what was done to it. Raises InputError."""
    try:
        with path.open("rb") as file:
            return decode(file.read(MAX_BYTES + 1), str(path), rule)
    except BadPictureError as error:
        raise InputError(path, str(error), expected=f"a picture ({', '.join(FORMATS)})") from None


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
    given = array.is_valid().to_numpy(zero_copy_only=False)
    array, ragged = flattened(array, image.rule)
    kind = array.type
    if not (is_list(kind) and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))):
        raise wrong_type(
            batch,
            name,
            batch.columns[name].type,
            f"pictures (bytes of JPEG, PNG, ..., or {{bytes, path}}), or a list of {image.pixels} numbers",
        )
    lengths = lengths_of(array)
    flat = array.flatten()  # without the places of missing rows
    missing = flat.is_null().to_numpy(zero_copy_only=False) if flat.null_count else None
    values = flat.to_numpy(zero_copy_only=False)
    return _Pixels(lengths, values, missing, given, ragged)


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
