"""Images that a person asks a release about: picture files, folders of them, Parquet and tar files.

A picture becomes pixels by the rule of the training data.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.errors import InputError
from graftline.raw.picture_formats import FORMATS, MAX_BYTES, SUFFIXES
from graftline.raw.webdataset import TAR, read_samples
from graftline.values.column import Question, Questions
from graftline.values.decoding import CHANGES, BadPictureError, decode
from graftline.values.encoded import encoded
from graftline.values.file_questions import FileQuestions
from graftline.values.image_arrays import flattened
from graftline.values.pixels import Pixels

if TYPE_CHECKING:
    from graftline.values.image import ImageColumn


def image_questions(column: ImageColumn, paths: list[Path]) -> Questions:
    """Return the images in files and, by name, in folders' files. Raises InputError as `FileQuestions.read_all`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's about odd files; what matters raises
        return _Pictures(column).read_all(paths)


class _Pictures(FileQuestions):
    one, plural = "picture", "images"
    formats, others, held = FORMATS, "Parquet or tar", "pictures or lists of numbers"
    suffixes, most_bytes, changes = SUFFIXES, MAX_BYTES, CHANGES

    def __init__(self, column: ImageColumn) -> None:
        super().__init__(column.name)
        self._column, self._rule = column, column.rule

    def kind(self, path: Path) -> str | None:
        return "tar" if path.name.lower().endswith(TAR) else super().kind(path)

    def read(self, path: Path) -> Iterator[Question]:
        if self.kind(path) == "tar":
            for sample in read_samples(path):
                yield self.question(f"{path}#{sample.key}", sample.picture, sample.name)
        else:
            yield from super().read(path)

    def decoded(self, name: str, data: bytes | None, path: str | None) -> tuple[np.ndarray, list[str]]:
        try:
            if data is None:
                raise BadPictureError(f"no picture of at most {MAX_BYTES} bytes")
            pixels, changes = decode(data, path, self._rule)
        except BadPictureError as error:
            height, width, _ = self._rule.shape
            raise InputError(
                name, str(error), expected=f"a picture of {height} x {width} pixels, as the training data's"
            ) from None
        return Pixels.of(pixels[None]).numpy()[0], changes

    def rows(self, path: Path, first: int, array: pa.Array) -> Iterator[Question]:
        return super().rows(path, first, array) if encoded(array.type) else self._lists(path, first, array)

    def _lists(self, path: Path, first: int, array: pa.Array) -> Iterator[Question]:
        """Yield images that are lists of pixels. Raises InputError."""
        column, size = self._column, int(np.prod(self._rule.shape))
        lists = flattened(array, self._rule)[0]
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        if len(wrong := np.flatnonzero(lengths != size)):
            raise InputError(
                f"{path}: row {first + wrong[0]}",
                f"column '{column.name}' has {lengths[wrong[0]]} pixels",
                expected=f"{size} a row",
            )
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        if not (np.isfinite(flat).all() and (flat >= 0).all() and (flat <= column.maximum).all()):
            raise InputError(
                path, f"column '{column.name}' has values outside the range", expected=f"0 to {column.maximum:g}"
            )
        images = Pixels.of(flat.reshape(-1, *self._rule.shape), column.maximum).numpy()
        for place, pixels in enumerate(images):
            yield Question(f"{path}#{first + place}", pixels)
