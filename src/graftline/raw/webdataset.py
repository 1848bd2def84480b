"""WebDataset: tar files in which files of one name but for the ending are a sample.

    000.jpg  000.cls  000.json  001.jpg  ...    https://github.com/webdataset/webdataset

Columns: image (the picture), label (.cls, else `label` in .json), text (.txt), key (the name), any other ending by
itself, and any other key of .json by its name.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa

from graftline.errors import InputError, brief
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.faults import damaged
from graftline.raw.media import ENCODED, IMAGE, LABEL
from graftline.raw.picture_formats import MAX_BYTES, is_hidden, is_picture
from graftline.raw.reader import Asked, Source, check_columns

TAR = (".tar", ".tar.gz", ".tgz")
KEY, TEXT = "key", "text"
_WORDS = {"cls": LABEL, "txt": TEXT}
"""Columns by the ending of the file."""
_LOOKED_AT = 100
"""How many samples tell of the columns."""


@dataclass
class Sample:
    """Files of one name."""

    key: str
    name: str | None = None
    """The picture's name in the tar file."""
    picture: bytes | None = None
    values: dict[str, str | None] = field(default_factory=dict)
    """Other columns, as text."""

    @property
    def size(self) -> int:
        return len(self.picture or b"") + sum(len(value or "") for value in self.values.values())


class WebDataset:
    """A `Reader`."""

    format: ClassVar[str] = "webdataset"
    suffixes: ClassVar[tuple[str, ...]] = TAR

    def takes(self, path: Path) -> bool:
        return path.is_file() and path.name.lower().endswith(TAR)

    def guess(self, path: Path) -> Source:
        return Source(format=self.format)

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        read = count = 0
        for sample in read_samples(path):
            if count == _LOOKED_AT:
                return int(count * path.stat().st_size / read), False
            count += 1
            read += sample.size + 1024  # a header of 512 bytes a file, and what fills its last block
        return count, True

    def schema(self, path: Path, source: Source) -> pa.Schema:
        names: dict[str, None] = {}
        for number, sample in enumerate(read_samples(path)):
            names |= dict.fromkeys(sample.values)
            if number == _LOOKED_AT:
                break
        return pa.schema([(IMAGE, ENCODED), (KEY, pa.string()), *((name, pa.string()) for name in names)])

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        waiting: list[Sample] = []
        size = 0
        dropped: dict[str, None] = {}
        known: set[str] = set()
        for sample in read_samples(path):
            if size > limits.BATCH_BYTES or len(waiting) == limits.MAX_ROWS:
                yield _batch(path, asked, waiting, first_row)
                first_row, waiting, size = first_row + len(waiting), [], 0
            if not known.issuperset(sample.values):
                known |= sample.values.keys()
                found = dict.fromkeys([IMAGE, *asked.names, *known])  # one that is asked for may come later
                dropped |= dict.fromkeys(check_columns(f"{path}: {sample.key}", list(found), asked))
            waiting.append(sample)
            size += sample.size
        if waiting:
            yield replace(_batch(path, asked, waiting, first_row), dropped=tuple(dropped))


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a tar file in its order. Raises InputError."""
    sample: Sample | None = None
    for name, content in _members(path):
        folder, _, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        if is_picture(PurePosixPath(name)) and sample.picture is None:
            sample.name, sample.picture = name, content
        else:
            _add(sample, ending.lower(), content, f"{path}: {name}")
    if sample is not None:
        yield sample


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file, each cut off where it is longer than any picture may be."""
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
            for member in tar:
                if not member.isreg() or is_hidden(PurePosixPath(member.name)):
                    continue
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, _whole(content, member)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise damaged(path, brief(error), "tar file") from None


def _whole(content: IO[bytes], member: tarfile.TarInfo) -> bytes:
    found = content.read(MAX_BYTES + 1)
    if len(found) < min(member.size, MAX_BYTES + 1):
        raise EOFError(f"{member.name} is cut off")
    return found


def _add(sample: Sample, ending: str, content: bytes, where: str) -> None:
    """Add a file that is no picture to its sample, by its ending."""
    if ending != "json":
        name = _WORDS.get(ending, ending)
        try:
            sample.values[name] = content.decode("utf-8").strip() or None
        except UnicodeDecodeError:  # a mask, an array: it can only be left out
            sample.values[name] = None
        return
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(where, f"not JSON ({brief(error)})", fix="correct the file") from None
    if not isinstance(found, dict):
        raise InputError(where, f"a JSON {type(found).__name__}", expected="an object")
    for name, value in found.items():
        sample.values.setdefault(name, _text(value))


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _batch(path: Path, asked: Asked, samples: list[Sample], first_row: int) -> RawBatch:
    columns: dict[str, pa.Array] = {}
    for name, found in zip(asked.columns, asked.names, strict=True):
        if found == IMAGE:
            pictures = [None if one.name is None else {"bytes": one.picture, "path": one.name} for one in samples]
            columns[name] = pa.array(pictures, ENCODED)
        else:
            values = [one.key if found == KEY else one.values.get(found) for one in samples]
            columns[name] = pa.array(values, pa.string())
    return RawBatch(path, first_row, columns, True, np.full(len(samples), len(asked.columns), np.int64))
