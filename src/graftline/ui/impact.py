"""What something reached: the page that asks of what, and the one that answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftline.errors import InputError
from graftline.lineage.impact import Impact, of_digest, of_package
from graftline.records.model import COMPARED
from graftline.ui.addresses import impact_page
from graftline.ui.views import Ask, NoPageError, View

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRecord

MOST = 2000
"""Beginnings that are offered; an export has a page of each."""
_LISTED = 200
"""Records of each kind, and releases, that an answer lists; it counts all."""
_HOME = ("Impact", "impact.html")
_DIGEST = re.compile(r"(sha256:)?([0-9a-fA-F]{8,64})")


@dataclass(frozen=True)
class Point:
    """Something to ask about."""

    kind: str
    name: str
    task: str
    digest: str


def search(ask: Ask) -> View:
    """Return the beginnings to choose from, those that hold every word asked for; of a package the answer itself."""
    wanted = ask.query.get("q", "").strip()
    if "==" in wanted:
        return _answer(of_package(ask.index, wanted, limit=_LISTED), wanted, None)
    found = points(ask)
    words = wanted.lower().split()
    offered = [point for point in found if all(word in _text(point) for word in words)]
    values = {"points": offered, "full": len(found) >= MOST, "most": MOST, "wanted": wanted}
    return View("impact.html.j2", "Impact", "impact", [_HOME], values)


def digest_asked_for(ask: Ask) -> str | None:
    """Return the page of the digest that a form asks for; None if it asks for something else."""
    match = _DIGEST.fullmatch(ask.query.get("q", "").strip())
    return impact_page(match[2].lower()) if match else None


def points(ask: Ask) -> list[Point]:
    """Return what the newest releases were made of, each digest once; of each task the newest first."""
    found: dict[str, Point] = {}
    for task in ask.index.tasks():
        for release in ask.index.releases(task, limit=ask.newest):
            found.setdefault(release.content, Point("release", release.reference, task, release.content))
            for record in ask.index.ancestors(release.records.values()):
                for point in _points_of(record):
                    found.setdefault(point.digest, point)
            if len(found) >= MOST:
                return list(found.values())[:MOST]
    return list(found.values())


def _points_of(record: IndexedRecord) -> Iterator[Point]:
    for given in record.inputs:
        if given.record is None and given.name != COMPARED:
            yield from (Point("raw file", file.path, record.task, file.sha256) for file in given.files)
            yield Point("input", given.name, record.task, given.sha256)
    yield Point(record.component, record.name, record.task, record.content)
    for kind, digest in (("commit", record.commit), ("image", record.image), ("lock", record.lock)):
        if digest:
            yield Point(kind, kind, record.task, digest)


def _text(point: Point) -> str:
    return f"{point.kind} {point.name} {point.task} {point.digest}".lower()


def reached(ask: Ask, digest: str) -> View:
    """Return what a digest or a commit, or the one that begins so, reached."""
    try:
        found = of_digest(ask.index, digest, limit=_LISTED)
    except InputError as error:
        raise NoPageError(str(error)) from None
    return _answer(found, digest, impact_page(digest))


def _answer(found: Impact, name: str, address: str | None) -> View:
    counts = sorted(found.reached.counts.items(), key=lambda item: (item[0][1], item[0][0]))
    values = {"found": found, "name": name, "counts": counts, "total": sum(found.reached.counts.values())}
    return View("reached.html.j2", f"Impact of {name[:16]}", "impact", [_HOME, (name, address)], values)
