"""What a commit wants now, and which slots have had their run: kept in the store, for every engine alike.

    runs/schedules/<name>.json   the schedule's times, since when its slots count, and when that was looked at

A slot is done when its run was started, or somebody is known to do its work; then those after it count. A schedule that
is new, has other times, was paused or had been taken out counts from the moment at which a reconcile first sees it so.
A reconcile that looked before the last one (it slept past the end of its lease) changes none of that.
"""

from __future__ import annotations

from datetime import datetime

from graftline.pipelines.reconcile.desired import Desired, desired
from graftline.pipelines.reconcile.planning import Actual
from graftline.pipelines.reconcile.repository import Repository
from graftline.pipelines.reconcile.schedules import Schedule
from graftline.store import Store
from graftline.store.documents import json_bytes, stored_json

FOLDER = "runs/schedules/"


class Agenda:
    """The schedules of one commit."""

    def __init__(self, repository: Repository, store: Store) -> None:
        self._repository, self._store = repository, store

    def begin(self, now: datetime) -> None:
        """Note from when the slots of each schedule count that is new, has other times, or is gone."""
        schedules = self._repository.schedules
        gone = {key.removeprefix(FOLDER).removesuffix(".json") for key in self._store.list(FOLDER)}
        for name in sorted(gone | schedules.keys()):
            times = _times(schedules[name]) if name in schedules else ""
            while True:
                noted, tag = stored_json(self._store, _key(name)) or ({}, None)
                if noted and datetime.fromisoformat(noted["looked"]) > now:
                    break
                same = noted.get("times") == times
                content = {
                    "times": times,
                    "since": noted["since"] if same else now.isoformat(),
                    "looked": now.isoformat(),
                }
                if self._store.replace(_key(name), json_bytes(content), tag):
                    break

    def desired(self, now: datetime) -> Desired:
        """Return what should have been started by now."""
        known = {name: read_since(self._store, name, one) for name, one in self._repository.schedules.items()}
        return desired(self._repository, {name: since for name, since in known.items() if since}, now)

    def note(self, wanted: Desired, actual: Actual) -> None:
        """Note the slots that have had their run: of each schedule those before the first that has not."""
        done, waits = dict[str, datetime](), set[str]()
        for run in wanted.runs:  # the slots of a schedule stand in order
            if run.due is None or run.schedule in waits:
                continue
            if actual.seen(run).started:
                done[run.schedule] = run.due
            else:
                waits.add(run.schedule)
        for name, slot in done.items():
            noted, tag = stored_json(self._store, _key(name)) or ({}, None)
            same = noted.get("times") == _times(self._repository.schedules[name])
            if same and datetime.fromisoformat(noted["since"]) < slot:
                self._store.replace(_key(name), json_bytes(noted | {"since": slot.isoformat()}), tag)


def read_since(store: Store, name: str, schedule: Schedule) -> datetime | None:
    """Return the moment from which a schedule's slots count; None if it is not noted with these times."""
    noted = stored_json(store, _key(name))
    if noted is None or noted[0]["times"] != _times(schedule):
        return None
    return datetime.fromisoformat(noted[0]["since"])


def _times(schedule: Schedule) -> str:
    return f"{schedule.cron} {schedule.zone}{' paused' if schedule.paused else ''}"


def _key(name: str) -> str:
    return f"{FOLDER}{name}.json"
