"""`graftline releases` and `graftline rollback`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.releases.catalogue import list_releases
from graftline.releases.promotion import rollback as roll_back


def releases(
    task: Annotated[str | None, typer.Argument(help="one task; all of them if left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list instead of a table")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """List releases, oldest first."""
    opened = open_given(store)
    found = list_releases(opened, task)
    columns = ("task", "version", "path", "digest", "created", "aliases")
    if as_json:
        print(json.dumps([{name: getattr(release, name) for name in columns} for release in found], indent=2))
        return
    if not found:
        print(f"no releases in {opened.url}; make one with `graftline run {task or 'TASK'}`")
        return
    listed = table("task", "version", "aliases", "created", "digest", "path", grid=True)
    for release in found:
        aliases = ", ".join(release.aliases)
        values = (release.task, release.version, aliases, release.created, release.digest[:12], release.path)
        listed.add_row(*(cell(value, limit=4096) for value in values))
    terminal().print(listed)


def rollback(
    task: Annotated[str, typer.Argument(help="the task")],
    to: Annotated[int, typer.Option("--to", metavar="N", min=1, help="the version to go back to")],
    store: Annotated[str, STORE] = "",
    alias: Annotated[str, typer.Option("--alias", help="the alias to move")] = "champion",
) -> None:
    """Point an alias at an earlier release again. It is recorded in the ledger; nothing is deleted."""
    release, moved = roll_back(open_given(store), task, to, alias)
    print(f"{task}@{alias} is {release.name} " + ("now" if moved else "already; nothing was changed"))
