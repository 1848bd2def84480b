"""What commands print: whatever values hold, nothing of it is markup, moves the cursor or is cut to the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

_WIDTH_ELSEWHERE = 160
"""Columns at least for a table that goes to a file or another program."""


def plain(value: object, limit: int = 200) -> str:
    """Return `value` as one printable line of at most `limit` characters; None is an empty string."""
    text = "" if value is None else str(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def cell(value: object, style: str = "", limit: int = 200) -> Text:
    """Return `value` for a table: text without markup."""
    return Text(plain(value, limit), style=style, overflow="fold")


def table(*columns: str | Text, grid: bool = False) -> Table:
    """Return an empty table. What a column has no room for goes on in the next line: nothing is cut."""
    made = Table(box=None if grid else box.HEAVY_HEAD, pad_edge=not grid)
    for name in columns:
        made.add_column(name, overflow="fold")
    return made


@contextmanager
def counting(what: str, least: int = 0) -> Iterator[Callable[[int, int], None]]:
    """Give what shows on a terminal how many of how many are done; nothing of fewer than `least`."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        line = bar.add_task(what, total=None, visible=not least)
        yield lambda done, of: bar.update(line, completed=done, total=of, visible=of >= least)


def terminal() -> Console:
    """Return where results are printed. Brackets in what is printed are brackets: labels and paths may hold some."""
    asked = os.environ.get("COLUMNS", "")
    wide = max(_WIDTH_ELSEWHERE, int(asked) if asked.isdecimal() else 0)
    return Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else wide)
