"""Encoded pictures, decoded ahead of the scan by other processes into a file that a killed run goes on with.

The file of a column lies in the run's work folder: each raw row has its place there, so that whoever decodes a row
writes it where it belongs. A line in the log beside it says that a batch is on the disk. A run that is killed anywhere
finds the batches whose lines stand there; at its end the file is linked into the dataset, without a copy.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL
import pyarrow as pa

from graftline.durable import write_atomic
from graftline.errors import GraftlineError, InputError
from graftline.raw.batches import RawBatch
from graftline.values.contract import Contract
from graftline.values.decoding import Decoded, decode_into, start_worker
from graftline.values.encoded import encoded
from graftline.values.image import Image
from graftline.values.image_arrays import packed
from graftline.values.pixels import HEADER_BYTES, npy_header, pixel_file

_Outcome = tuple[dict[int, str], dict[str, int]]

CHUNK = 256
CHUNK_BYTES = 1 << 20
"""How many pictures, of how many bytes, are decoded by one process in one go."""
AHEAD_BYTES = 32 << 20
"""How many bytes of encoded pictures wait for the scan at most, or are being decoded."""


class Ahead:
    """Decodes the pictures of raw data's batches; to be entered."""

    def __init__(self, contract: Contract, first: RawBatch, folder: Path, raw: str, workers: int) -> None:
        """Decode the columns that are encoded pictures in the first batch.

        Args:
            contract: says what they become.
            first: the first batch of the data.
            folder: keeps what is decoded; a run that is killed finds it there.
            raw: sha256 of all raw data. With other data, or where it is read otherwise, nothing that is found is used.
            workers: processes.
        """
        source = contract.source.model_dump(mode="json")
        self._files = {
            name: _PixelFile(folder, name, column, {"raw": raw, "source": source, "column": column.name})
            for name, column in contract.columns.items()
            if isinstance(column, Image) and encoded(first.columns[name].type)
        }
        self._workers, self._begun = workers, 0
        self._pool: ProcessPoolExecutor | None = None

    @property
    def columns(self) -> Collection[str]:
        """The columns that are decoded here: rows get places in files of pixels."""
        return self._files.keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for file in self._files.values():
            file.close()

    def decoded(self, batches: Iterable[RawBatch]) -> Iterator[RawBatch]:
        """Yield the batches with their pictures' pixels, reading and decoding ahead of whoever takes them.

        Raises:
            InputError: a file has lists of pixels where the first had pictures.
            GraftlineError: a process that decodes died.
        """
        waiting: deque[tuple[RawBatch, dict[str, _Begun]]] = deque()
        ahead = 0
        for batch in batches:
            begun = {name: self._begin(batch, file) for name, file in self._files.items()}
            ahead += sum(one.size for one in begun.values())
            waiting.append((batch, begun))
            while len(waiting) > 1 and ahead > AHEAD_BYTES:
                ahead -= sum(one.size for one in waiting[0][1].values())
                yield self._finish(*waiting.popleft())
        while waiting:
            yield self._finish(*waiting.popleft())

    def link(self, dataset: Path, rows: int) -> None:
        """Put the files of so many rows into the dataset's folder."""
        for file in self._files.values():
            file.link(dataset, rows)

    def clear(self, rows: np.ndarray) -> None:
        """Overwrite the pixels of rows that are no part of the dataset."""
        for file in self._files.values():
            file.clear(rows)

    def _begin(self, batch: RawBatch, file: _PixelFile) -> _Begun:
        array = batch.columns[file.name]
        if not encoded(array.type):
            raise InputError(
                f"{batch.file}: column '{file.name}'",
                f"type {array.type}",
                expected="encoded pictures, as in the file before",
                fix="bring all images in one form",
            )
        begun = _Begun(batch.first_row, batch.rows, array.nbytes)
        if begun.key in file.known:
            return begun
        for start, end in _chunks(array):
            part = array.slice(start, end - start)
            task = (str(file.path), file.place(batch.first_row + start), packed(part), file.rule)
            begun.chunks.append((start, self._submit(task, part.nbytes)))
        return begun

    def _submit(self, task: tuple[Any, ...], size: int) -> Future[_Outcome]:
        """Decode here while the pictures are few: processes start in a second."""
        self._begun += size
        if self._pool is None and self._begun > 2 * CHUNK_BYTES:
            self._pool = ProcessPoolExecutor(self._workers, get_context("spawn"), start_worker)
        if self._pool is not None:
            return self._pool.submit(decode_into, *task)
        done: Future[_Outcome] = Future()
        done.set_result(decode_into(*task))
        return done

    def _finish(self, batch: RawBatch, begun: dict[str, _Begun]) -> RawBatch:
        try:
            decoded = {name: file.finish(begun[name]) for name, file in self._files.items()}
        except BrokenProcessPool:
            raise GraftlineError(
                f"a process that decodes pictures was killed at rows {batch.first_row} to "
                f"{batch.first_row + batch.rows - 1}; give the stage more memory, or fewer processes with --threads"
            ) from None
        return replace(batch, decoded=decoded)


@dataclass
class _Begun:
    """A batch of one column that is being decoded."""

    first: int
    rows: int
    size: int
    """Bytes of its pictures."""
    chunks: list[tuple[int, Future[_Outcome]]] = field(default_factory=list)
    """Each with its first row within the batch; none of a batch that an earlier run has decoded."""

    @property
    def key(self) -> tuple[int, int, int]:
        return self.first, self.rows, self.size


class _PixelFile:
    """The pixels of one column, and the log of the batches that are in it."""

    def __init__(self, folder: Path, name: str, column: Image, rows: dict[str, Any]) -> None:
        """Open or begin the file; `rows` says what the rows are of, and in which order."""
        self.name, self.rule, self.size = name, column.rule, column.pixels
        self.path = folder / pixel_file(name)
        self.known: dict[tuple[int, int, int], dict[str, Any]] = {}
        self._head = {**rows, "rule": repr(self.rule), "pillow": PIL.__version__}
        self._log_path = self.path.with_suffix(".jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        self._recall()
        self._write_log()
        self._log = self._log_path.open("ab")
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)

    def close(self) -> None:
        self._log.close()
        os.close(self._file)

    def place(self, row: int) -> int:
        """Return the byte that a row begins at."""
        return HEADER_BYTES + row * self.size

    def finish(self, begun: _Begun) -> Decoded:
        """Return a batch when it is on the disk, its pixels mapped from there."""
        if begun.key not in self.known:
            bad: dict[str, str] = {}
            changes: dict[str, int] = {}
            for start, future in begun.chunks:
                wrong, done = future.result()
                bad |= {str(start + place): why for place, why in wrong.items()}
                for change, count in done.items():
                    changes[change] = changes.get(change, 0) + count
            os.fdatasync(self._file)  # before the line that says so
            self._enter({"batch": begun.key, "bad": bad, "changes": changes})
            self._log.flush()
        line = self.known[begun.key]
        shape, offset = (begun.rows, *self.rule.shape), self.place(begun.first)
        pixels = np.memmap(self.path, np.uint8, "r", offset, shape)
        return Decoded(pixels, {int(place): why for place, why in line["bad"].items()}, line["changes"])

    def link(self, dataset: Path, rows: int) -> None:
        os.ftruncate(self._file, self.place(rows))
        os.pwrite(self._file, npy_header((rows, *self.rule.shape)), 0)
        self._linked = dataset / self.path.name
        try:
            os.link(self.path, self._linked)
        except OSError:  # not on this file system
            shutil.copyfile(self.path, self._linked)

    def clear(self, rows: np.ndarray) -> None:
        """Overwrite rows with zeros; the log forgets their batches first: another run would take them as decoded."""
        left: list[int] = []
        for (first, count, size), line in list(self.known.items()):
            inside = rows[(rows >= first) & (rows < first + count)]
            found = [row for row in inside.tolist() if str(row - first) not in line["bad"]]  # zeros stand there
            if found:
                del self.known[first, count, size]
                left += found
        self._write_log()
        with self._linked.open("r+b") as file:
            for row in left:
                os.pwrite(file.fileno(), bytes(self.size), self.place(row))

    def _recall(self) -> None:
        """Learn from the log what an earlier run has decoded of the same data; else begin anew."""
        try:
            head, *lines = self._log_path.read_bytes().splitlines(keepends=True)
            same = json.loads(head) == self._head and self.path.stat().st_nlink == 1  # else it is of a dataset by now
        except (FileNotFoundError, ValueError):
            same, lines = False, []
        if not same:
            self.path.unlink(missing_ok=True)
            return
        for line in lines:
            with suppress(ValueError):  # cut off or damaged: its batch is decoded again
                found = json.loads(line)
                self.known[tuple(found["batch"])] = found

    def _write_log(self) -> None:
        lines = [self._head, *self.known.values()]
        write_atomic(self._log_path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def _enter(self, line: dict[str, Any]) -> None:
        self.known[line["batch"]] = line
        self._log.write(json.dumps(line).encode() + b"\n")


def _chunks(array: pa.Array) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the parts that are decoded in one go."""
    each = max(1, min(CHUNK, CHUNK_BYTES * len(array) // max(1, array.nbytes)))
    for start in range(0, len(array), each):
        yield start, min(start + each, len(array))
