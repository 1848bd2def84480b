"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftline.environment import ROOT
from graftline.store.opening import open_store

if TYPE_CHECKING:
    from graftline.store import Store

STORE = typer.Option("--store", envvar="GRAFTLINE_STORE", metavar="DIR|s3://BUCKET/PREFIX", help="where releases live")


STORE_OF_CLUSTER = typer.Option("--store", metavar="s3://BUCKET/PREFIX", help="default: pipelines/settings.yaml")
ENDPOINT = typer.Option("--endpoint", envvar="GRAFTLINE_KFP", metavar="URL", help="of Kubeflow Pipelines")
Task = Annotated[str, typer.Argument(help="the task: a folder under data/")]
Release = Annotated[str, typer.Argument(help="task@version or task@alias, such as mnist@champion")]
TEXT_HELP = "a text to ask about, instead of files; may be given several times"
Texts = Annotated[list[str] | None, typer.Option("--text", help=TEXT_HELP)]


def open_given(url: str) -> Store:
    """Open the store at `url`, or the checkout's own for an empty one."""
    return open_store(url or str(ROOT / "store"))


def address(url: str) -> str:
    """Return the address of the store that `open_given` opens, for processes that run in another folder."""
    url = url or str(ROOT / "store")
    return url if "://" in url else str(Path(url).absolute())
