"""`graftline index`, and how the commands that ask it questions open it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftline.cli.shown import cell, counting, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.environment import ROOT
from graftline.index.opening import index_path, open_index

if TYPE_CHECKING:
    from graftline.index.queries import Index

OUTPUTS = typer.Option(
    "--outputs", metavar="DIR", help="also outputs below this folder (the checkout's own with its own store)"
)


def index(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="make it anew from the records")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object")] = False,
    store: Annotated[str, STORE] = "",
    outputs: Annotated[list[Path] | None, OUTPUTS] = None,
) -> None:
    """Look at every key of the store and bring the index up to date; list what had to be left out."""
    opened, folders = open_given(store), folders_given(store, outputs)
    with (
        indexing() as progress,
        open_index(opened, folders=folders, full=True, rebuild=rebuild, progress=progress) as made,
    ):
        counts, problems = made.counts(), made.problems()
    path = index_path(opened, folders)
    if as_json:
        print(json.dumps({"path": str(path), **counts, "left_out": [asdict(p) for p in problems]}, indent=2))
        return
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()) + f" in {path}")
    if problems:
        left_out = table("left out", "why", grid=True)
        for problem in problems:
            left_out.add_row(cell(problem.key), cell(problem.reason))
        terminal().print(left_out)


def open_for_questions(store: str, outputs: list[Path] | None) -> Index:
    """Open the index of the given store, with progress if it has to be made."""
    with indexing() as progress:
        return open_index(open_given(store), folders=folders_given(store, outputs), progress=progress)


def indexing() -> AbstractContextManager[Callable[[int, int], None]]:
    """Give what shows how far an index is made, where that takes a while."""
    return counting("index", least=2000)


def folders_given(store: str, outputs: list[Path] | None) -> list[Path]:
    """Return the folders of outputs: those given, or the checkout's own with the checkout's own store."""
    if outputs or store:
        return outputs or []
    return [ROOT / "outputs"] if (ROOT / "outputs").is_dir() else []
