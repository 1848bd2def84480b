"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from graftline.environment import ROOT
from graftline.store.opening import open_store

if TYPE_CHECKING:
    from graftline.store import Store

STORE = typer.Option("--store", envvar="GRAFTLINE_STORE", metavar="DIR|s3://BUCKET/PREFIX", help="where releases live")


TEXT_HELP = "a text to ask about, instead of files; may be given several times"
Texts = Annotated[list[str] | None, typer.Option("--text", help=TEXT_HELP)]


def open_given(url: str) -> Store:
    """Open the store at `url`, or the checkout's own for an empty one."""
    return open_store(url or str(ROOT / "store"))
