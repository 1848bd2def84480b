"""`graftline index`, and how the commands that ask it questions open it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from graftline.cli.shown import cell, terminal
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
        _progress() as progress,
        open_index(opened, folders=folders, full=True, rebuild=rebuild, progress=progress) as made,
    ):
        counts, problems = made.counts(), made.problems()
    path = index_path(opened, folders)
    if as_json:
        print(json.dumps({"path": str(path), **counts, "left_out": [asdict(p) for p in problems]}, indent=2))
        return
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()) + f" in {path}")
    if problems:
        table = Table("left out", "why", box=None, pad_edge=False)
        for problem in problems:
            table.add_row(cell(problem.key), cell(problem.reason))
        terminal().print(table)


def open_for_questions(store: str, outputs: list[Path] | None) -> Index:
    """Open the index of the given store, with progress if it has to be made."""
    with _progress() as progress:
        return open_index(open_given(store), folders=folders_given(store, outputs), progress=progress)


def folders_given(store: str, outputs: list[Path] | None) -> list[Path]:
    """Return the folders of outputs: those given, or the checkout's own with the checkout's own store."""
    if outputs or store:
        return outputs or []
    return [ROOT / "outputs"] if (ROOT / "outputs").is_dir() else []


class _progress:  # noqa: N801  (used as a context manager only)
    """A bar on the terminal, with an estimate of the time left; it appears with the first report."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            if not sys.stderr.isatty() or total < 2000:
                return
            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("index", total=total)
        self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
