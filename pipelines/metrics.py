"""What a cluster's own metrics cannot say, for Prometheus: how old each champion is, what is due, what is at work.

    python -m graftline.pipelines.metrics --listen 0.0.0.0:9464 [--checkout DIR] [--store URL]

GET /metrics answers in the text format (https://prometheus.io/docs/instrumenting/exposition_formats/), GET /healthz
says that it runs. infra/components/monitoring has the deployment and the alerts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from graftline.environment import ROOT
from graftline.errors import GraftlineError
from graftline.git import git
from graftline.pipelines.reconcile.agenda import FOLDER, read_since
from graftline.pipelines.reconcile.schedules import load_schedules, next_slot
from graftline.releases.catalogue import champion, list_releases
from graftline.runs import open_runs
from graftline.store import Store
from graftline.store.documents import stored_json
from graftline.store.opening import open_store

Values = dict[tuple[tuple[str, str], ...], float]
"""A gauge's value by its labels."""
Reader = Callable[[], Values]

_LOOK_BACK = timedelta(days=366)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Gauge:
    """One metric: what it means, and its value for each set of labels."""

    name: str
    help: str
    values: Values

    def text(self) -> str:
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} gauge"]
        for labels, value in self.values.items():
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            lines.append(f"{self.name}{{{inside}}} {value:.0f}" if labels else f"{self.name} {value:.0f}")
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def collect(store_url: str, checkout: Path, now: datetime) -> list[Gauge]:
    """Return the gauges; a store or a checkout that cannot be read is a gauge of 0, never an exception."""
    champions, store_readable = _or_nothing("store", lambda: champion_times(store_url))
    due, schedules_readable = _or_nothing("schedules", lambda: due_times(checkout, store_url, now))
    looked, runs_readable = _or_nothing("reconcile", lambda: look_times(store_url))
    at_work, _ = _or_nothing("runs", lambda: open_counts(store_url))
    readable = min(store_readable, runs_readable)
    told: tuple[tuple[str, str, Values], ...] = (
        ("store_readable", "1 if the store could be read.", {(): readable}),
        ("schedules_readable", "1 if the schedules could.", {(): schedules_readable}),
        ("champion_created_timestamp_seconds", "When the task's champion was released.", champions),
        (
            "schedule_due_timestamp_seconds",
            "When the schedule's first slot that nothing was started for is due, or was.",
            due,
        ),
        ("reconcile_looked_timestamp_seconds", "When reconcile last looked.", looked),
        ("runs_open", "Runs that have begun and have no end, by task.", at_work),
    )
    return [Gauge(f"graftline_{name}", help, values) for name, help, values in told]


def _or_nothing(what: str, read: Reader) -> tuple[Values, float]:
    try:
        return read(), 1.0
    except (GraftlineError, OSError) as error:
        said = str(error)
    except Exception as error:  # noqa: BLE001  (whatever it is: the other gauges are still to be told)
        said = repr(error)
    print(f"metrics: {what}: {said}", file=sys.stderr, flush=True)
    return {}, 0.0


def champion_times(store_url: str) -> Values:
    """Return when each task's champion was released, Unix seconds. Raises GraftlineError, OSError."""
    store = _store(store_url)
    tasks = sorted({release.task for release in list_releases(store)})
    found = {task: release for task in tasks if (release := champion(store, task))}
    return {(("task", task),): datetime.fromisoformat(release.created).timestamp() for task, release in found.items()}


def due_times(checkout: Path, store_url: str, now: datetime) -> Values:
    """Return when each schedule is due next, Unix seconds: in the past for one whose slot nothing was started for.

    Slots count from where reconcile has noted so; where it has not yet, from the last change of schedules.yaml, a year
    ago at most. A schedule that is paused, or of changes only, is never due. Raises GraftlineError, OSError.
    """
    store = _store(store_url)
    changed = max(_changed(checkout, "pipelines/schedules.yaml"), now - _LOOK_BACK)
    values: Values = {}
    for name, schedule in load_schedules(checkout / "pipelines/schedules.yaml").items():
        since = read_since(store, name, schedule) or changed
        if not schedule.paused and (slot := next_slot(schedule, since)):
            values[("schedule", name), ("task", schedule.task)] = slot.timestamp()
    return values


def look_times(store_url: str) -> Values:
    """Return when a reconcile last looked at what is due, Unix seconds; empty if none ever did."""
    store = _store(store_url)
    found = [stored_json(store, key) for key in store.list(FOLDER)]
    looks = [datetime.fromisoformat(noted[0]["looked"]).timestamp() for noted in found if noted]
    return {(): max(looks)} if looks else {}


def open_counts(store_url: str) -> Values:
    """Return how many runs of each task have begun and have no end."""
    tasks = Counter(begun.task for begun in open_runs(_store(store_url)))
    return {(("task", task),): float(count) for task, count in sorted(tasks.items())}


def _store(url: str) -> Store:
    return open_store(url or str(ROOT / "store"))


def _changed(checkout: Path, path: str) -> datetime:
    said = git(checkout, "log", "-1", "--first-parent", "--format=%cI", "--", path)
    if not said:
        raise GraftlineError(f"{checkout}: {path}: no commit has it")
    return datetime.fromisoformat(said)


class _Handler(BaseHTTPRequestHandler):
    store_url = ""
    checkout = ROOT

    def do_GET(self) -> None:
        if self.path == "/metrics":
            gauges = collect(self.store_url, self.checkout, datetime.now(UTC))
            self._answer(200, CONTENT_TYPE, "".join(gauge.text() for gauge in gauges))
        elif self.path == "/healthz":
            self._answer(200, "text/plain", "ok\n")
        else:
            self._answer(404, "text/plain", "GET /metrics\n")

    def _answer(self, status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log no requests: a scrape a minute says nothing."""


def server(address: tuple[str, int], store_url: str, checkout: Path) -> ThreadingHTTPServer:
    """Return a server that answers on `address`; `serve_forever` starts it. Port 0 takes a free one."""
    handler = type("Handler", (_Handler,), {"store_url": store_url, "checkout": checkout})
    return ThreadingHTTPServer(address, handler)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m graftline.pipelines.metrics", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9464", metavar="HOST:PORT")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="a git repository with its history")
    parser.add_argument("--store", default=os.environ.get("GRAFTLINE_STORE", ""), help="where releases live")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    if not port.isdecimal():
        parser.error(f"--listen {given.listen}: expected HOST:PORT")
    with server((host, int(port)), given.store, given.checkout) as listening:
        listening.serve_forever()


if __name__ == "__main__":
    main()
