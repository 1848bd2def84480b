"""What a format of raw data is to the rest: a reader. One file a format, beside this; files.py has the table of them.

Nothing in a reader trusts a file: what cannot be read ends in an InputError with the place and the way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from graftline.errors import InputError, nearest
from graftline.tasks.parameters import Params

if TYPE_CHECKING:
    import pyarrow as pa

    from graftline.raw.batches import RawBatch


class Source(Params):
    """How the raw data is to be read, where its files do not say it: `source` in a contract."""

    format: str | None = None
    """The word of a reader, such as `csv`; without it, the files' endings decide."""


@dataclass(frozen=True)
class Asked:
    """What is wanted of raw data."""

    columns: Sequence[str]
    """Names of columns."""
    source: Source = field(default_factory=Source)


class Reader(Protocol):
    """A format. Of a folder that is one source as a whole, such as pictures in folders, the path is the folder."""

    format: ClassVar[str]
    """The word for it in a contract's `source.format`."""
    suffixes: ClassVar[tuple[str, ...]]
    """Endings of its files, for people; none for a format of whole folders."""

    def takes(self, path: Path) -> bool:
        """Return whether this file, or this folder as a whole, is of the format, by its name or what lies in it."""

    def schema(self, path: Path, source: Source) -> pa.Schema:
        """Return the columns found, by reading little; where values are text still to be parsed, they are strings.

        Raises:
            InputError: it cannot be read.
        """

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        """Yield the rows, numbered from `first_row`, in batches of at most MAX_ROWS rows and about BATCH_BYTES bytes.

        Raises:
            InputError: it is damaged or of another format, or its columns are not those that are asked for.
        """


def check_columns(where: object, found: Sequence[str], expected: Sequence[str]) -> None:
    """Raise InputError unless `found` are the names in `expected`, each once, in any order."""
    repeated = sorted({name for name in found if list(found).count(name) > 1})
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if not (repeated or missing or extra):
        return
    parts = [f"column {name!r} stands twice" for name in repeated]
    parts += [f"column {name!r} is missing" for name in missing]
    parts += [f"unknown column {_short(name)}{nearest(name[:80], list(expected))}" for name in extra[:5]]
    if len(extra) > 5:
        parts.append(f"{len(extra) - 5} more unknown columns")
    raise InputError(
        where,
        "; ".join(parts),
        expected="the columns " + ", ".join(expected),
        fix="correct the file, or declare the columns in the contract",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def first_line(error: Exception) -> str:
    """Return the beginning of another library's message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(". ") if lines else type(error).__name__
