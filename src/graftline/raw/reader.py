"""What a format of raw data is to the rest: a reader. One file a format, beside this; files.py has the table of them.

Nothing in a reader trusts a file: what cannot be read ends in an InputError with the place and the way out.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from graftline.errors import InputError, nearest
from graftline.raw.lines import ending
from graftline.tasks.parameters import Params

if TYPE_CHECKING:
    import pyarrow as pa

    from graftline.raw.batches import RawBatch

Others = Literal["refuse", "drop"]


def _encoding(name: str) -> str:
    try:
        known = codecs.lookup(name)
        "\n".encode(name)
    except (LookupError, UnicodeError, TypeError):
        raise ValueError(f"unknown encoding '{name}'; expected one that Python knows, such as cp1252") from None
    if not known._is_text_encoding or "escape" in known.name or known.name in ("idna", "punycode", "utf-7"):
        raise ValueError(f"'{name}' is no encoding of files; expected one such as cp1252")
    return name


def _file_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"'{name}' is no plain name; expected that of a file in the raw folder, such as items.csv")
    return name


Character = Annotated[str, Field(min_length=1, max_length=1, pattern=r"^[^\r\n\x00]$")]


class Source(Params):
    """How the raw data is to be read, where its files do not say it: `source` in a contract."""

    format: str | None = None
    """The word of a reader, such as `csv`; without it, the files' endings decide."""

    manifest: str | None = None
    """In a folder of pictures or clips, the name of the CSV or JSON Lines file that says what each is; without it, the
    only one there is."""

    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    """What text is in, as Python names it: `cp1252`, `utf-16`, `shift_jis`."""

    delimiter: Character | None = None
    """What stands between the cells of CSV; without it the comma, semicolon or tab by which the header names the
    columns."""

    quote: Character = '"'
    """What stands around a cell of CSV that holds separators or line breaks."""

    escape: Character | None = None
    """What stands before a quote inside a quoted cell, as Spark's backslash; without it the quote stands twice."""

    header: tuple[str, ...] | None = None
    """The names of the columns of CSV, or of a sheet, whose first row is one of values already."""

    sheet: str | None = None
    """The name of the sheet of a workbook; without it, the only one there is."""

    user: str | None = None
    """Of interactions, a row each: the column that says whose it is. The rows of each user become one, of which the
    other columns are lists."""

    time: str | None = None
    """Of interactions: the column by which a user's are put in order; without it they stay as they stand. Of a user it
    has the last time."""

    catalogue: Annotated[str, AfterValidator(_file_name)] | None = None
    """The name of a table in the raw folder itself that holds no rows: it tells what the items of histories are."""

    @model_validator(mode="after")
    def _time_is_of_users(self) -> Self:
        if self.time is not None and self.user is None:
            raise ValueError("source.time puts a user's interactions in order: name source.user too")
        return self


@dataclass(frozen=True)
class Asked:
    """What is wanted of raw data."""

    columns: Sequence[str]
    """Names of columns, as the batches have them."""
    source: Source = field(default_factory=Source)
    others: Others = "refuse"
    """What becomes of columns that are not asked for."""
    found_as: Mapping[str, str] = field(default_factory=dict)
    """The names that columns have in the raw data, where these are others; `meta.language` is a field of a struct."""

    @property
    def names(self) -> list[str]:
        """The columns' names in the raw data."""
        return [self.found_as.get(name, name) for name in self.columns]


class Reader(Protocol):
    """A format. Of a folder that is one source as a whole, such as pictures in folders, the path is the folder."""

    format: ClassVar[str]
    """The word for it in a contract's `source.format`."""
    suffixes: ClassVar[tuple[str, ...]]
    """Endings of its files, for people; none for a format of whole folders."""

    def takes(self, path: Path) -> bool:
        """Return whether this file, or this folder as a whole, is of the format, by its name or what lies in it."""
        return path.is_file() and ending(path) in self.suffixes

    def guess(self, path: Path) -> Source:
        """Return how it seems to be written, from its beginning: for `look` alone, never while data is read."""
        return Source()

    def schema(self, path: Path, source: Source) -> pa.Schema:
        """Return the columns found, by reading little; where values are text still to be parsed, they are strings.

        Raises:
            InputError: it cannot be read.
        """

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        """Return how many rows there are or seem to be, by reading little, and whether that is exact."""

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        """Yield the rows, numbered from `first_row`, in batches of at most MAX_ROWS rows and about BATCH_BYTES bytes.

        Raises:
            InputError: it is damaged or of another format, or its columns are not those that are asked for.
        """


def check_columns(where: object, found: Sequence[str], asked: Asked) -> tuple[str, ...]:
    """Return the columns that are dropped: found and not asked for.

    Raises:
        InputError: `found` are not the names asked for, each once, in any order, or others that may not be dropped.
    """
    expected = asked.names
    repeated = sorted({name for name in found if list(found).count(name) > 1})
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if asked.others == "drop":
        repeated = [name for name in repeated if name in expected]
    if not (repeated or missing or (extra and asked.others == "refuse")):
        return tuple(dict.fromkeys(extra))
    parts = [f"column {name!r} stands twice" for name in repeated]
    parts += [f"column {name!r} is missing" for name in missing]
    if asked.others == "refuse":
        parts += [f"unknown column {_short(name)}{nearest(name[:80], list(expected))}" for name in extra[:5]]
        if len(extra) > 5:
            parts.append(f"{len(extra) - 5} more unknown columns")
    elif extra:
        parts.append("others are " + ", ".join(map(_short, extra[:10])))
    raise InputError(
        where,
        "; ".join(parts),
        expected="the columns " + ", ".join(expected),
        fix="correct the file, or declare the columns in the contract" + (", or `others: drop`" if extra else ""),
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
