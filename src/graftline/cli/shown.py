"""Values from records on a terminal: whatever they hold, nothing of it is markup or moves the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_WIDTH_ELSEWHERE = 160
"""Columns for a table that goes to a file or another program."""


def plain(value: object, limit: int = 200) -> str:
    """Return `value` as one printable line of at most `limit` characters; None is an empty string."""
    text = "" if value is None else str(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def cell(value: object, style: str = "", limit: int = 200) -> Text:
    """Return `value` for a table: text without markup."""
    from rich.text import Text

    return Text(plain(value, limit), style=style, overflow="fold")


def terminal() -> Console:
    """Return where tables are printed."""
    import sys

    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE)
