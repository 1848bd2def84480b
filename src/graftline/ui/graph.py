"""The page of a lineage: of one release, of a task, or of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from graftline.ui.addresses import graph_page, release_page, task_page
from graftline.ui.nodes import MOST, Node, build
from graftline.ui.views import Ask, NoPageError, View

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRelease

_HOME = ("Lineage", "graph.html")


def all_graph(ask: Ask) -> View:
    """Return the lineage of all tasks, or of the newest releases if that is too much for one page."""
    releases = ask.index.releases(limit=ask.newest)
    values = {"tasks": ask.index.tasks(), "scope": "all tasks", "everything": True}
    return _page(ask, "Lineage", releases, [_HOME], values)


def task_graph(ask: Ask, task: str) -> View:
    releases = ask.index.releases(task, limit=ask.newest)
    if not releases:
        raise NoPageError(f"no release of a task {task!r}")
    crumbs = [_HOME, (task, graph_page(task))]
    return _page(ask, f"Lineage of {task}", releases, crumbs, {"back": task_page(task), "scope": task})


def release_graph(ask: Ask, task: str, version: int) -> View:
    """Return what a release was made of, and what was made of its parts."""
    release = ask.index.release(task, version)
    if release is None:
        raise NoPageError(f"no release {task}@{version}")
    parts = list(release.records.values())
    later = ask.index.reached(parts, limit=ask.newest).releases
    others = [other for other in later if other.reference != release.reference]
    newest = sorted(others, key=lambda other: other.created, reverse=True)
    crumbs = [_HOME, (task, graph_page(task)), (str(version), graph_page(task, version))]
    values = {"back": release_page(task, version), "scope": f"{release.reference} and what its parts went into"}
    return _page(ask, f"Lineage of {release.reference}", [release, *newest], crumbs, values)


def _page(
    ask: Ask,
    title: str,
    releases: Sequence[IndexedRelease],
    crumbs: list[tuple[str, str | None]],
    values: Mapping[str, object],
) -> View:
    nodes, used = fitting(ask, releases)
    focus = next((node.id for node in nodes if releases and node.label == releases[0].reference), "")
    left_out = len(releases) - used
    return View(
        "graph.html.j2", title, "graph", crumbs,
        {"back": None, "everything": False, "tasks": [], **values, "nodes": nodes, "left_out": left_out, "focus": focus,
         "labels": {node.id: node.label for node in nodes}},
    )  # fmt: skip


def fitting(ask: Ask, releases: Sequence[IndexedRelease]) -> tuple[list[Node], int]:
    """Return the nodes of as many of the releases, in their order, as fit one page; and how many those are."""
    used = len(releases)
    while True:
        shown = releases[:used]
        records = ask.index.ancestors([sha for release in shown for sha in release.records.values()])
        nodes = build(shown, records)
        if len(nodes) <= MOST or used <= 1:
            return nodes, used
        used = max(1, min(used - 1, used * MOST // len(nodes)))
