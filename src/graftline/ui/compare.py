"""Two models side by side: the page that asks which, and the one that says what made them differ."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from graftline.lineage.diff import diff
from graftline.releases.layout import CHAMPION
from graftline.ui.addresses import diff_page
from graftline.ui.views import Ask, NoPageError, View

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRelease

_OFFERED = 400
"""Releases to choose from; any other can be typed."""
_EACH = 5
"""Releases of each task in the pairs that a server offers; an export offers those that it has."""


def compare(ask: Ask) -> View:
    offered = pairs(ask)
    values = {
        "releases": ask.index.releases(limit=_OFFERED),
        "pairs": offered,
        "a": offered[0][0].reference if offered else "",
        "b": offered[0][1].reference if offered else "",
    }
    return View("compare.html.j2", "Compare", "compare", [("Compare", "compare.html")], values)


def pairs(ask: Ask) -> list[tuple[IndexedRelease, IndexedRelease]]:
    """Return each release of each task with the one before, and the newest with the champion; newest first."""
    found = []
    for task in ask.index.tasks():
        releases = ask.index.releases(task, limit=_EACH if ask.served else ask.newest)
        steps = [(before, after) for after, before in pairwise(releases)]
        promoted = ask.index.aliases(task).get((task, CHAMPION))
        champion = ask.index.release(task, promoted) if promoted else None
        if champion and releases and champion.version not in (releases[0].version, releases[0].version - 1):
            steps.insert(0, (champion, releases[0]))
        found += steps
    return sorted(found, key=lambda pair: pair[1].created, reverse=True)


def pair_asked_for(ask: Ask) -> str | None:
    """Return the page of the pair that a form asks for; None if it asks for none."""
    a, b = ask.query.get("a", "").strip(), ask.query.get("b", "").strip()
    if not a and not b:
        return None
    one, two = ask.index.resolve(a), ask.index.resolve(b)
    return diff_page(one.reference, two.reference)


def difference(ask: Ask, a: tuple[str, int], b: tuple[str, int]) -> View:
    one, two = ask.index.release(*a), ask.index.release(*b)
    if one is None or two is None:
        missing = a if one is None else b
        raise NoPageError(f"no release {missing[0]}@{missing[1]}")
    found = diff(ask.store, one.reference, two.reference, ask.repository)
    name = f"{one.reference} and {two.reference}"
    crumbs = [("Compare", "compare.html"), (name, diff_page(one.reference, two.reference))]
    values = {
        "a": one,
        "b": two,
        "difference": found,
        "swapped": diff_page(two.reference, one.reference),
        "reach": max(
            [abs(end) for change in found.metrics for end in (change.low, change.high) if end is not None] or [0.0]
        ),
    }
    return View("diff.html.j2", name, "compare", crumbs, values)
