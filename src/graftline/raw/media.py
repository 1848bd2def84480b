"""A folder of pictures or of clips: a folder a class, or a CSV or JSON Lines file that says what each file is.

    cat/1.jpg  dog/2.png              columns image, label (the folder's name), path
    train/cat/1.jpg  test/dog/2.png   the same, and split, if the contract asks for it
    1.jpg  2.jpg  metadata.csv        columns image, path and those of the manifest, which names files in file_name

Of clips (WAV, FLAC, Ogg) the first column is audio. Hidden files, links and files of another kind are passed over, and
said to be. A file that the manifest names and that is not there is a row without a picture or a clip.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow as pa

from graftline.errors import InputError, nearest
from graftline.raw import limits
from graftline.raw.batches import LeftOut, RawBatch
from graftline.raw.clip_formats import is_clip
from graftline.raw.delimited import Delimited
from graftline.raw.jsonl import JsonLines
from graftline.raw.picture_formats import MAX_BYTES, is_hidden, is_picture
from graftline.raw.reader import Asked, Reader, Source
from graftline.raw.walk import walk

IMAGE, AUDIO, LABEL, PATH, SPLIT = "image", "audio", "label", "path", "split"
ENCODED = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A file's content and its path, as Hugging Face has pictures and clips."""
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
"""Names of folders, and the split of what lies in them."""

_MANIFESTS: tuple[Reader, ...] = (Delimited(), JsonLines())
_FILE_COLUMNS = ("file_name", "filename", "file")
"""What a manifest calls the files; or by the name of their column, or `path`."""
_LOOKED_AT = 10_000
"""How many files tell of what kind a folder is."""


class MediaFolder(ABC):
    """A `Reader` of a whole folder, whose rows are files of one kind."""

    format: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    one: ClassVar[str]
    """What a file is, for people."""
    column: ClassVar[str]
    """The name of the files' column."""

    @staticmethod
    @abstractmethod
    def holds(path: PurePath) -> bool:
        """Return whether a file is of the kind by its ending."""

    def takes(self, path: Path) -> bool:
        if not path.is_dir() or any(file.suffix in (".parquet", ".arrow", ".xlsx", ".tar") for file in path.iterdir()):
            return False
        return any(self.holds(PurePosixPath(name)) for name in islice(walk(path, []), _LOOKED_AT))

    def guess(self, path: Path) -> Source:
        manifest = _manifest(path, Source())
        written = Source() if manifest is None else manifest.reader.guess(manifest.path)
        name = None if manifest is None else manifest.path.name
        return written.model_copy(update={"format": self.format, "manifest": name})

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        if manifest := _manifest(path, source):
            return manifest.reader.rows(manifest.path, source)
        return sum(self.holds(PurePosixPath(name)) for name in walk(path, [])), True

    def schema(self, path: Path, source: Source) -> pa.Schema:
        manifest = _manifest(path, source)
        given = pa.schema([(self.column, ENCODED), (PATH, pa.string())])
        if manifest is None:
            splits = [(SPLIT, pa.string())] if _split_folders(path) else []
            return pa.schema([*given, (LABEL, pa.string()), *splits])
        found = manifest.reader.schema(manifest.path, source)
        named = _file_column(manifest, found.names, self)
        return pa.schema([*given, *(field for field in found if field.name not in (named, self.column, PATH))])

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        manifest = _manifest(path, asked.source)
        rows = MediaRows(path, asked, self.column)
        read = _of_folders(rows, self) if manifest is None else _of_manifest(rows, manifest, self)
        for batch in read:
            yield replace(batch, first_row=first_row)
            first_row += batch.rows


class Pictures(MediaFolder):
    """A folder of pictures."""

    format = "pictures"
    one, column, holds = "picture", IMAGE, staticmethod(is_picture)


class Clips(MediaFolder):
    """A folder of clips."""

    format = "clips"
    one, column, holds = "clip", AUDIO, staticmethod(is_clip)


def is_media(path: PurePath) -> bool:
    """Return whether a file is of a kind of which whole folders are read, by its ending."""
    return is_picture(path) or is_clip(path)


def manifest_of(folder: Path, source: Source) -> Path | None:
    """Return the table that says what each file of a folder is, if there is one. Raises InputError for several."""
    manifest = _manifest(folder, source)
    return None if manifest is None else manifest.path


@dataclass
class MediaRows:
    """Rows of a folder that wait to be a batch."""

    folder: Path
    asked: Asked
    column: str
    """The name of the files' column."""
    names: list[str | None] = field(default_factory=list)
    contents: list[bytes | None] = field(default_factory=list)
    size: int = 0

    def add(self, name: str | None) -> None:
        """Read a file; None is a row that names none."""
        data = None if name is None else _read(self.folder, name)
        self.names.append(name)
        self.contents.append(data)
        self.size += len(data or b"") + len(name or "")

    @property
    def full(self) -> bool:
        return self.size > limits.BATCH_BYTES or len(self.names) == limits.MAX_ROWS

    def batch(self, columns: dict[str, pa.Array], is_text: bool, cells: np.ndarray | None = None) -> RawBatch:
        """Return the rows with these columns beside the file and its path, and begin anew."""
        paths = pa.array(self.names, pa.string())
        files = pa.StructArray.from_arrays([pa.array(self.contents, pa.binary()), paths], fields=list(ENCODED))
        every = {PATH: paths, **columns, self.column: files}
        whole, names = np.full(len(self.names), len(self.asked.columns), np.int64), self.names
        self.names, self.contents, self.size = [], [], 0
        wanted = {name: every[found] for name, found in zip(self.asked.columns, self.asked.names, strict=True)}
        return RawBatch(self.folder, 0, wanted, is_text, whole if cells is None else cells, files=names)


def file_inside(folder: Path, name: str) -> Path | None:
    """Return the resolved path of a file of a folder; None if it has none of this name, or the name leads elsewhere."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        return None


def _read(folder: Path, name: str) -> bytes | None:
    """Return a file's content, cut off where it is longer than any may be; None if there is none inside."""
    path = file_inside(folder, name)
    if path is None:
        return None
    with path.open("rb", buffering=0) as file:
        return file.read(MAX_BYTES + 1)


def _of_folders(rows: MediaRows, kind: MediaFolder) -> Iterator[RawBatch]:
    """Yield files whose folders say what they are."""
    by_split = _by_split(rows.folder, rows.asked.names, kind)
    labels, splits = list[str | None](), list[str]()
    left_out: list[LeftOut] = []

    def batch() -> RawBatch:
        columns = {LABEL: pa.array(labels, pa.string()), SPLIT: pa.array(splits, pa.string())}
        found = replace(rows.batch(columns, is_text=True), left_out=tuple(left_out))
        for waiting in (labels, splits, left_out):
            waiting.clear()
        return found

    for name in walk(rows.folder, left_out):
        parts = PurePosixPath(name).parts
        if not kind.holds(PurePosixPath(name)):
            left_out.append(LeftOut(name, f"not a {kind.one}"))
            continue
        if rows.full:
            yield batch()
        rows.add(name)
        if by_split:
            splits.append(SPLITS.get(parts[0], parts[0]))
            parts = parts[1:]
        labels.append(parts[0] if len(parts) > 1 else None)
    if rows.names:
        yield batch()


def _by_split(folder: Path, asked: Sequence[str], kind: MediaFolder) -> bool:
    """Return whether the first folder of a path is a split. Raises InputError for columns that folders do not tell."""
    known = (kind.column, LABEL, PATH, SPLIT)
    if other := next((name for name in asked if name not in known), None):
        raise InputError(
            folder,
            f"folders of {kind.format} tell no column '{other}'{nearest(other, list(known))}",
            expected="columns of " + ", ".join(known),
            fix="name them so in the contract, or bring a manifest: a .csv or .jsonl file with a column file_name",
        )
    found = _split_folders(folder)
    if found and SPLIT not in asked:
        raise InputError(
            folder,
            f"the folders {', '.join(found)}: splits",
            expected="a folder a class",
            fix="declare the column `split: {type: string, role: split}` in the contract",
        )
    if SPLIT in asked and not found:
        raise InputError(
            folder, "no folders train, val, test with folders of classes in them", expected="the column split",
            fix="leave it out of the contract",
        )  # fmt: skip
    return bool(found)


def _split_folders(folder: Path) -> list[str]:
    """Return the folders that are splits by their names, if all are and they hold folders of classes."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(PurePosixPath(path.name)))
    if not folders or any(path.name not in SPLITS for path in folders):
        return []
    return [path.name for path in folders] if any(inner.is_dir() for inner in folders[0].iterdir()) else []


@dataclass(frozen=True)
class _Manifest:
    path: Path
    reader: Reader


def _manifest(folder: Path, source: Source) -> _Manifest | None:
    """Return the table of a folder: the one the contract names, else the only one there is."""
    if source.manifest is not None:
        found = [folder / source.manifest]
        if not found[0].is_file():
            raise InputError(found[0], "no such file", fix="correct source.manifest in the contract")
    else:
        found = sorted(p for p in folder.iterdir() if p.is_file() and any(reader.takes(p) for reader in _MANIFESTS))
    if not found:
        return None
    if len(found) > 1:
        raise InputError(
            folder,
            "several tables beside the files: " + ", ".join(path.name for path in found[:5]),
            expected="one that says what each file is",
            fix="name it in the contract: `source: {manifest: NAME}`",
        )
    reader = next((reader for reader in _MANIFESTS if reader.takes(found[0])), None)
    if reader is None:
        raise InputError(found[0], f"a file of type '{found[0].suffix}'", expected="a .csv or .jsonl file")
    return _Manifest(found[0], reader)


def _file_column(manifest: _Manifest, names: Sequence[str], kind: MediaFolder) -> str:
    """Return the column that names each row's file."""
    known = (*_FILE_COLUMNS, kind.column, PATH)
    found = next((name for name in known if name in names), None)
    if found is None:
        raise InputError(
            manifest.path, f"no column that names the {kind.one}s' files", expected=f"one of {', '.join(known)}"
        )
    return found


def _of_manifest(rows: MediaRows, manifest: _Manifest, kind: MediaFolder) -> Iterator[RawBatch]:
    """Yield the files that a table names, with its columns."""
    folder, asked = rows.folder, rows.asked
    named = _file_column(manifest, manifest.reader.schema(manifest.path, asked.source).names, kind)
    others = [name for name in asked.names if name not in (kind.column, PATH)]
    columns, seen = list(dict.fromkeys([named, *others])), set[str]()
    held: RawBatch | None = None  # until it is known what the table does not name
    for table in manifest.reader.batches(manifest.path, replace(asked, columns=columns, found_as={}), 0):
        cells = table.cells - len(columns) + len(asked.columns)
        start = 0
        for end, name in enumerate(table.columns[named].to_pylist(), start=1):
            inside = None if name is None else str(name).replace("\\", "/")
            rows.add(inside)
            seen.add(os.path.relpath(folder / (inside or ""), folder))  # `./a.png` is a.png
            if rows.full or end == table.rows:
                if held is not None:
                    yield held
                part = {key: table.columns[key].slice(start, end - start) for key in others}
                held = replace(rows.batch(part, table.is_text, cells[start:end]), dropped=table.dropped)
                start = end
    left_out: list[LeftOut] = []
    beside = (name for name in walk(folder, left_out) if name not in seen and folder / name != manifest.path)
    left_out += [LeftOut(name, f"not in {manifest.path.name}") for name in beside]
    if held is not None:
        yield replace(held, left_out=tuple(left_out))
