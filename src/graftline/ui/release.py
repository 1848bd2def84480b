"""The page of a release: what it measured, its card and report, how it was made, what verify says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.digests import FileDigest
from graftline.errors import GraftlineError
from graftline.lineage.run import read_run
from graftline.releases.layout import manifest_files
from graftline.score import primary_name
from graftline.ui.addresses import diff_page, release_page, task_page
from graftline.ui.card import Block, read_card
from graftline.ui.charts import with_interval, without_interval
from graftline.ui.stored import CARD, find_report, manifest_of, pictures, read_file
from graftline.ui.values import finite
from graftline.ui.verdicts import of_release
from graftline.ui.views import Ask, NoPageError, View

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRelease

_LEAD = 5
"""Metrics at the head of the page."""


@dataclass(frozen=True)
class MetricLine:
    """One metric beside that of the release which it was compared with."""

    name: str
    value: float
    low: float | None
    high: float | None
    before: float | None


@dataclass(frozen=True)
class Content:
    """What the store holds of a release."""

    files: list[FileDigest]
    card: list[Block]
    compared_with: IndexedRelease | None
    trouble: str
    """Why something could not be read; empty if everything could."""


def release(ask: Ask, task: str, version: int) -> View:
    found = ask.index.release(task, version)
    if found is None:
        raise NoPageError(f"no release {task}@{version}")
    content = _content(ask, found)
    before = content.compared_with or ask.index.release(task, version - 1)
    lines = metric_lines(found, content.compared_with)
    steps = ask.index.ancestors(found.records.values())
    crumbs = [("Models", "index.html"), (task, task_page(task)), (str(version), release_page(task, version))]
    values = {
        "release": found,
        "content": content,
        "lines": lines,
        "lead": lines[:_LEAD],
        "pictures": pictures(content.files),
        "report": find_report(ask, found) is not None,
        "steps": steps,
        "check": of_release(ask, found, [step.sha256 for step in steps]),
        "events": ask.index.history(task, version=version)[::-1],
        "run": read_run(ask.store, found.run) if found.run else None,
        "before": before,
        "difference": diff_page(before.reference, found.reference) if before else None,
    }
    return View("release.html.j2", found.reference, "models", crumbs, values)


def metric_lines(found: IndexedRelease, before: IndexedRelease | None) -> list[MetricLine]:
    metrics, earlier = finite(found.metrics), finite(before.metrics) if before else {}
    names = [*with_interval(metrics, primary_name(found.metrics)), *without_interval(metrics)]
    return [
        MetricLine(name, metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"), earlier.get(name))
        for name in names
    ]


def _content(ask: Ask, found: IndexedRelease) -> Content:
    try:
        manifest = manifest_of(ask.store, found)
        files = manifest_files(manifest)
        compared = _compared(ask, found.task, manifest.get("compared_with"))
    except GraftlineError as error:
        return Content([], [], None, str(error))
    try:
        text = read_file(ask.store, found, CARD).decode("utf-8", "replace") if _has_card(files) else ""
    except GraftlineError as error:
        return Content(files, [], compared, str(error))
    return Content(files, read_card(text), compared, "")


def _has_card(files: list[FileDigest]) -> bool:
    return any(file.path == CARD for file in files)


def _compared(ask: Ask, task: str, named: Any) -> IndexedRelease | None:
    """Return the champion that a release was measured against, if it is in this store."""
    if not isinstance(named, Mapping) or type(named.get("version")) is not int:
        return None
    other = ask.index.release(task, named["version"])
    return other if other and other.content == named.get("digest") else None
