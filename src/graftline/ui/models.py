"""The pages of all tasks and of one: what is released, who is champion, and how metrics went over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from graftline.releases.layout import CHAMPION
from graftline.score import primary_name
from graftline.ui.addresses import release_page, task_page
from graftline.ui.charts import Chart, Sample, draw, sparkline, with_interval, without_interval
from graftline.ui.values import finite, moment, number
from graftline.ui.views import Ask, NoPageError, View

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRelease

_SPARK = 40
_EVENTS = 8
COLUMNS = 4
"""Metrics beside each release in a list."""


@dataclass(frozen=True)
class TaskLine:
    """A task in the list of all."""

    task: str
    champion: IndexedRelease | None
    newest: IndexedRelease | None
    metric: str
    """The metric that is shown: the primary score, or another with an interval, or the first."""
    spark: str


def models(ask: Ask) -> View:
    lines = [_line(ask, task) for task in ask.index.tasks()]
    lines = [line for line in lines if line.newest]
    lines.sort(key=lambda line: line.newest.created if line.newest else "", reverse=True)
    values = {"lines": lines, "counts": ask.index.counts(), "events": ask.index.history(newest=_EVENTS)[::-1]}
    return View("models.html.j2", "Models", "models", values=values)


def _line(ask: Ask, task: str) -> TaskLine:
    releases = ask.index.releases(task, limit=_SPARK)
    newest = releases[0] if releases else None
    metric = headline(newest.metrics) if newest else ""
    promoted = ask.index.aliases(task).get((task, CHAMPION))
    champion = next((release for release in releases if release.version == promoted), None)
    if champion is None and promoted is not None:
        champion = ask.index.release(task, promoted)
    return TaskLine(task, champion, newest, metric, sparkline(metric, samples(releases, frozenset())))


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the metric to show where there is room for one; empty if there is none."""
    numbers, primary = finite(metrics), primary_name(metrics)
    names = [*with_interval(numbers, primary), *without_interval(numbers)]
    return primary if primary in names else next(iter(names), "")


def samples(releases: Sequence[IndexedRelease], promoted: frozenset[int]) -> list[Sample]:
    """Return the releases, given newest first, as samples of a chart, oldest first."""
    return [
        Sample(
            label=str(release.version),
            note=f"{release.reference}, {moment(release.created)}",
            link=release_page(release.task, release.version) or "",
            metrics=finite(release.metrics),
            marked=release.version in promoted,
        )
        for release in reversed(releases)
    ]


def task(ask: Ask, name: str) -> View:
    releases = ask.index.releases(name, limit=ask.newest)
    if not releases:
        raise NoPageError(f"no release of a task {name!r}")
    history = ask.index.history(name)
    promoted = frozenset(entry.version for entry in history if entry.event == "promote" and entry.alias == CHAMPION)
    points = samples(releases, promoted)
    metrics: dict[str, float] = {}
    for point in points:
        metrics |= point.metrics
    certain, others = with_interval(metrics, primary_name(releases[0].metrics)), without_interval(metrics)
    values = {
        "task": name,
        "releases": releases,
        "finite": finite,
        "columns": [*certain, *others][:COLUMNS],
        "charts": _charts(certain, points),
        "more": _charts(others, points),
        "older": _older(ask, name),
        "events": history[-_EVENTS:][::-1],
        "promoted": promoted,
        "pairs": {a.version: b.version for a, b in pairwise(releases)},
    }
    return View("task.html.j2", name, "models", [("Models", "index.html"), (name, task_page(name))], values)


def _older(ask: Ask, name: str) -> int:
    """Return how many releases there are beyond those that are shown."""
    count = 0
    while more := len(ask.index.releases(name, limit=1000, offset=ask.newest + count)):
        count += more
    return count


def _charts(names: Sequence[str], points: Sequence[Sample]) -> list[Chart]:
    return [chart for chart in (draw(name, points) for name in names) if chart]


def interval(metrics: dict[str, float], name: str) -> str:
    """Return `0.9700 to 0.9879`, or an empty string for a metric without an interval."""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"
