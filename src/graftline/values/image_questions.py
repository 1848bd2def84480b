"""Images that a person asks a release about: picture files, folders of them, Parquet and tar files.

A picture becomes pixels by the rule of the training data. What was done to pictures on the way, and what of a folder
is no picture, is said.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.errors import InputError, brief
from graftline.raw.picture_formats import FORMATS, MAX_BYTES, SUFFIXES, is_hidden
from graftline.raw.webdataset import TAR, read_samples
from graftline.values.column import Question, Questions
from graftline.values.decoding import CHANGES, BadPictureError, decode
from graftline.values.image_arrays import encoded, flattened, pictures_of
from graftline.values.pixels import Pixels

if TYPE_CHECKING:
    from graftline.values.image import ImageColumn

_NAMED = 20
"""How many files that are left out are named."""
_KINDS = "a picture (" + ", ".join(FORMATS) + "), Parquet or tar"


def image_questions(column: ImageColumn, paths: list[Path]) -> Questions:
    """Return the images in files and, by name, in folders' files.

    Raises:
        InputError: there is none; or a file that is named is none. Of a folder such a file is left out.
    """
    asking = _Asking(column)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's about odd files; what matters raises
        found = [question for path in paths for question in asking.named(path)]
    if not found:
        where = ", ".join(map(str, paths)) or "the command line"
        raise InputError(where, "no images", expected=f"{_KINDS} files", fix="; ".join(asking.left_out[:_NAMED]))
    return Questions(found, asking.notes())


class _Asking:
    """Reads images and keeps what there is to say of them."""

    def __init__(self, column: ImageColumn) -> None:
        self._column, self._rule = column, column.rule
        self._changes: Counter[str] = Counter()
        self.left_out: list[str] = []

    def notes(self) -> list[str]:
        """Return what to tell the person."""
        said = [
            f"{count} picture{'s' if count > 1 else ''}: {CHANGES[change]}"
            for change, count in sorted(self._changes.items())
        ]
        more = [f"and {len(self.left_out) - _NAMED} more"] if len(self.left_out) > _NAMED else []
        return said + [f"left out: {name}" for name in self.left_out[:_NAMED]] + more

    def named(self, path: Path) -> Iterator[Question]:
        """Yield the images of what was named."""
        if path.is_dir():
            for inner in sorted(file for file in path.rglob("*") if not is_hidden(file.relative_to(path))):
                if inner.is_file():
                    yield from self._inside(inner)
        elif not path.exists():
            raise InputError(path, "no such file or folder", fix="check the path")
        elif _kind(path) is None:
            raise InputError(path, f"a file of type '{path.suffix}'", expected=f"{_KINDS}, or a folder")
        else:
            yield from self._read(path)

    def _inside(self, path: Path) -> Iterator[Question]:
        """Yield the images of a file in a folder; leave out what is none."""
        if _kind(path) is None:
            self.left_out.append(f"{path} (not a picture, Parquet or tar)")
            return
        try:
            yield from self._read(path)
        except InputError as error:
            if _kind(path) != "picture":
                raise
            self.left_out.append(f"{path} ({error.found})")

    def _read(self, path: Path) -> Iterator[Question]:
        kind = _kind(path)
        if kind == "parquet":
            yield from self._parquet(path)
        elif kind == "tar":
            for sample in read_samples(path):
                yield self._picture(f"{path}#{sample.key}", sample.picture, sample.name)
        else:
            data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
            yield self._picture(str(path), data, str(path))

    def _picture(self, name: str, data: bytes | None, path: str | None) -> Question:
        try:
            if data is None:
                raise BadPictureError(f"no picture of at most {MAX_BYTES} bytes")
            pixels, changes = decode(data, path, self._rule)
        except BadPictureError as error:
            height, width, _ = self._rule.shape
            raise InputError(
                name, str(error), expected=f"a picture of {height} x {width} pixels, as the training data's"
            ) from None
        self._changes.update(changes)
        return Question(name, Pixels.of(pixels[None]).numpy()[0])

    def _parquet(self, path: Path) -> Iterator[Question]:
        """Yield the rows of a Parquet file with this column. Raises InputError."""
        column = self._column
        try:
            with pq.ParquetFile(path) as file:
                row = 0
                for batch in file.iter_batches(256, columns=[column.name]):
                    array = batch.column(column.name)
                    yield from (
                        self._pictures(path, row, array) if encoded(array.type) else self._lists(path, row, array)
                    )
                    row += len(array)
        except (pa.ArrowException, KeyError, OSError, ValueError, AttributeError) as error:
            raise InputError(
                path, brief(error), expected=f"Parquet with a column '{column.name}' of pictures or lists of numbers"
            ) from None

    def _pictures(self, path: Path, first: int, array: pa.Array) -> Iterator[Question]:
        for place, (data, name) in enumerate(pictures_of(array)):
            yield self._picture(f"{path}#{first + place}", data, name)

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


def _kind(path: Path) -> str | None:
    """Return how a file is read, by its ending; None for one that is not."""
    if path.suffix.lower() in SUFFIXES:
        return "picture"
    if path.name.lower().endswith(TAR):
        return "tar"
    return "parquet" if path.suffix.lower() == ".parquet" else None
