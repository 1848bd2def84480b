"""What a person asks a release about that lies in files of one kind, in folders of them, or in Parquet files.

A file becomes a value by the rule of the training data. What was done to files on the way, and what of a folder is no
file of the kind, is said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import InputError, brief
from graftline.raw.picture_formats import is_hidden
from graftline.values.column import Question, Questions
from graftline.values.encoded import encoded, files_of

_NAMED = 20
"""How many files that are left out are named."""


class FileQuestions(ABC):
    """Reads files and keeps what there is to say of them."""

    one: ClassVar[str]
    """What a file is, such as `picture`."""
    plural: ClassVar[str]
    """What the values are, such as `images`."""
    formats: ClassVar[Iterable[str]]
    others: ClassVar[str] = "Parquet"
    """The formats of files with several."""
    held: ClassVar[str]
    """What a column of Parquet may hold."""
    suffixes: ClassVar[tuple[str, ...]]
    most_bytes: ClassVar[int]
    """Length of the longest file that is read."""
    changes: ClassVar[Mapping[str, str]]
    """What may be done to a file, by its word, for people."""

    def __init__(self, name: str) -> None:
        """Read the column of that name where a file has several."""
        self._name = name
        self._changes: Counter[str] = Counter()
        self._left_out: list[str] = []

    @abstractmethod
    def decoded(self, name: str, data: bytes | None, path: str | None) -> tuple[Any, Iterable[str]]:
        """Return the value in a file's bytes, and what was done to it. Raises InputError, which begins with `name`.

        `data` is None of a file that is too long or not there.
        """

    def read_all(self, paths: list[Path]) -> Questions:
        """Return the values in files and, by name, in folders' files.

        Raises:
            InputError: there is none; or a file that is named is none. Of a folder such a file is left out.
        """
        found = [question for path in paths for question in self._named(path)]
        if not found:
            where = ", ".join(map(str, paths)) or "the command line"
            left_out = "; ".join(self._left_out[:_NAMED])
            raise InputError(where, f"no {self.plural}", expected=f"{self._readers} files", fix=left_out)
        return Questions(found, self._notes())

    def kind(self, path: Path) -> str | None:
        """Return how a file is read, by its ending; None for one that is not."""
        if path.suffix.lower() in self.suffixes:
            return self.one
        return "parquet" if path.suffix.lower() == ".parquet" else None

    def read(self, path: Path) -> Iterator[Question]:
        """Yield the values in a file. Raises InputError."""
        if self.kind(path) == "parquet":
            yield from self._parquet(path)
        else:
            data = path.read_bytes() if path.stat().st_size <= self.most_bytes else None
            yield self.question(str(path), data, str(path))

    def question(self, name: str, data: bytes | None, path: str | None) -> Question:
        """Return the value in a file's bytes. Raises InputError."""
        value, changes = self.decoded(name, data, path)
        self._changes.update(changes)
        return Question(name, value)

    def rows(self, path: Path, first: int, array: pa.Array) -> Iterator[Question]:
        """Yield the values of a Parquet column's rows from `first` on. Raises InputError or ValueError."""
        if not encoded(array.type):
            raise ValueError(f"the column '{self._name}' is of type {array.type}")
        for place, (data, name) in enumerate(files_of(array)):
            yield self.question(f"{path}#{first + place}", data, name)

    @property
    def _readers(self) -> str:
        """What may be named, for people."""
        return f"a {self.one} ({', '.join(self.formats)}), {self.others}"

    def _notes(self) -> list[str]:
        """Return what to tell the person."""
        said = [
            f"{count} {self.one}{'s' if count > 1 else ''}: {self.changes[change]}"
            for change, count in sorted(self._changes.items())
        ]
        more = [f"and {len(self._left_out) - _NAMED} more"] if len(self._left_out) > _NAMED else []
        return said + [f"left out: {name}" for name in self._left_out[:_NAMED]] + more

    def _named(self, path: Path) -> Iterator[Question]:
        """Yield the values of what was named."""
        if path.is_dir():
            for inner in sorted(file for file in path.rglob("*") if not is_hidden(file.relative_to(path))):
                if inner.is_file():
                    yield from self._inside(inner)
        elif not path.exists():
            raise InputError(path, "no such file or folder", fix="check the path")
        elif self.kind(path) is None:
            raise InputError(path, f"a file of type '{path.suffix}'", expected=f"{self._readers}, or a folder")
        else:
            yield from self.read(path)

    def _inside(self, path: Path) -> Iterator[Question]:
        """Yield the values of a file in a folder; leave out what is none."""
        if self.kind(path) is None:
            self._left_out.append(f"{path} (not a {self.one}, {self.others})")
            return
        try:
            yield from self.read(path)
        except InputError as error:
            if self.kind(path) != self.one:
                raise
            self._left_out.append(f"{path} ({error.found})")

    def _parquet(self, path: Path) -> Iterator[Question]:
        """Yield the rows of a Parquet file with this column. Raises InputError."""
        try:
            with pq.ParquetFile(path) as file:
                row = 0
                for batch in file.iter_batches(256, columns=[self._name]):
                    yield from self.rows(path, row, batch.column(self._name))
                    row += len(batch)
        except (pa.ArrowException, KeyError, OSError, ValueError, AttributeError) as error:
            expected = f"Parquet with a column '{self._name}' of {self.held}"
            raise InputError(path, brief(error), expected=expected) from None
