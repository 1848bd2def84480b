"""What should have been started by now: runs of changes, and of slots that are due. The same for every engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from graftline.errors import GraftlineError
from graftline.pipelines.reconcile.repository import Repository
from graftline.pipelines.reconcile.schedules import Schedule, due_slots, slot_name
from graftline.pipelines.runkey import Run


@dataclass(frozen=True)
class OneRun(Run):
    """A run that should have been started by now, in the slot `commit:<sha>`, `shift:<...>` or one of its schedule."""

    schedule: str
    concurrency: int
    due: datetime | None = None
    """When its slot came; None for a change."""

    @property
    def slot_file(self) -> str:
        """The slot as a name in the store."""
        return self.slot.replace(":", "-")

    @property
    def label(self) -> str:
        """Schedule and slot for people, a commit by its first 12 characters."""
        return f"{self.schedule} {self.slot_file[: 19 if self.slot.startswith('commit:') else None]}"


@dataclass(frozen=True)
class Unknown:
    """A schedule of which it cannot be told what it wants; what is there of it stays as it is."""

    schedule: str
    reason: str
    """Such as parameters that are wrong, or data that breaks its contract."""


@dataclass(frozen=True)
class Desired:
    """All that a commit wants at a moment."""

    runs: tuple[OneRun, ...]
    unknown: tuple[Unknown, ...] = ()


def desired(repository: Repository, since: Mapping[str, datetime], now: datetime) -> Desired:
    """Return the runs of changes and of due slots; one task that cannot be told stops no other's schedules.

    Args:
        repository: the commit.
        since: by schedule the moment from which its slots count; a schedule that is new counts from now on.
        now: the time, with a zone.
    """
    runs, unknown = list[OneRun](), list[Unknown]()
    for name, schedule in sorted(repository.schedules.items()):
        if schedule.paused:
            continue
        try:
            runs += _wanted(repository, name, schedule, due_slots(schedule, since.get(name, now), now))
        except GraftlineError as error:
            unknown.append(Unknown(name, str(error)))
    return Desired(tuple(runs), tuple(unknown))


def _wanted(repository: Repository, name: str, schedule: Schedule, slots: Iterable[datetime]) -> list[OneRun]:
    changes = (_of_commit(repository, name, schedule), _of_shift(repository, name, schedule))
    return [run for run in changes if run is not None] + [
        OneRun(
            repository.work(name),
            slot_name(slot),
            {"kind": "schedule", "schedule": name, "slot": slot_name(slot)},
            name,
            schedule.concurrency,
            slot,
        )
        for slot in slots
    ]


def _of_commit(repository: Repository, name: str, schedule: Schedule) -> OneRun | None:
    changed = repository.changed(name)
    if changed is None:
        return None
    work = repository.work(name)
    kind = "data" if changed.what == ("data",) else "commit"
    reason = {
        "kind": kind,
        "schedule": name,
        "slot": f"commit-{changed.commit}",
        "commit": changed.commit,
        "changed": list(changed.what),
        "data": work.data_digest,
    }
    return OneRun(work, f"commit:{changed.commit}", reason, name, schedule.concurrency)


def _of_shift(repository: Repository, name: str, schedule: Schedule) -> OneRun | None:
    shift = repository.shift(name) if "shift" in schedule.on_change else None
    if shift is None or not shift.beyond:
        return None
    work = repository.work(name)
    slot = f"shift:{work.data_digest[:16]}-{shift.champion.replace('@', '-')}"  # once for this data and champion
    reason = {
        "kind": "shift",
        "schedule": name,
        "slot": slot.replace(":", "-"),
        "data": work.data_digest,
        "champion": shift.champion,
        "limit": shift.limit,
        "index": shift.beyond,
    }
    return OneRun(work, slot, reason, name, schedule.concurrency)
