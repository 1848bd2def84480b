"""What should be there: recurring runs in the backend, and single runs of changes and of slots that are due."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError
from graftline.pipelines.reconcile.cron import utc_cron
from graftline.pipelines.reconcile.repository import Repository, Work
from graftline.pipelines.reconcile.schedules import Schedule, due_slots, slot_name

SCHEDULED = "[[ScheduledTime.20060102T150405Z]]"
"""Kubeflow puts the slot in its place, in the form of `slot_name`."""


@dataclass(frozen=True)
class Recurring:
    """A recurring run of the backend: Kubeflow starts its slots."""

    schedule: str
    work: Work
    cron: str
    """Six fields, in UTC."""
    concurrency: int
    catch_up: bool
    paused: bool

    @property
    def parameters(self) -> dict[str, str]:
        """What each of its runs is given. The key ends in the slot, which only the backend knows."""
        key = f"{self.work.run_key('')[:32]}-{SCHEDULED}"
        reason = {"kind": "schedule", "schedule": self.schedule, "slot": SCHEDULED}
        return _given(self.work, key, reason)

    @property
    def identity(self) -> str:
        """12 hex characters over all that a recurring run is made of: there is no way to change one in place.

        `paused` is a part: a recurring run that was paused and goes on would run its last missed slot at once.
        """
        content = {
            "version": self.work.version, "parameters": self.parameters, "cron": self.cron,
            "concurrency": self.concurrency, "catch_up": self.catch_up, "paused": self.paused,
        }  # fmt: skip
        return sha256_bytes(canonical_json(content))[:12]

    @property
    def name(self) -> str:
        return f"{self.schedule}.{self.identity}"


@dataclass(frozen=True)
class OneRun:
    """A run that should have been started by now."""

    schedule: str
    work: Work
    slot: str
    """`commit:<sha>`, `shift:<...>` or a slot's name."""
    reason: Mapping[str, Any] = field(hash=False)
    concurrency: int

    @property
    def key(self) -> str:
        if ":" in self.slot:
            return self.work.run_key(self.slot)
        return f"{self.work.run_key('')[:32]}-{self.slot}"  # as Kubeflow's own scheduler writes it

    @property
    def name(self) -> str:
        """The run's name in the backend."""
        from graftline.pipelines.runkey import run_name

        return run_name(self.work.task, self.key)

    @property
    def slot_file(self) -> str:
        """The slot as a name in the store."""
        return self.slot.replace(":", "-")

    @property
    def label(self) -> str:
        """Schedule and slot for people, a commit by its first 12 characters."""
        return f"{self.schedule} {self.slot_file[: 19 if self.slot.startswith('commit:') else None]}"

    @property
    def parameters(self) -> dict[str, str]:
        return _given(self.work, self.key, self.reason)


@dataclass(frozen=True)
class Unknown:
    """A schedule of which it cannot be told what it wants; what is there of it stays as it is."""

    schedule: str
    reason: str
    """Such as parameters that are wrong, or data that breaks its contract."""


@dataclass(frozen=True)
class Desired:
    """All that a commit wants at a moment."""

    recurring: tuple[Recurring, ...]
    runs: tuple[OneRun, ...]
    unknown: tuple[Unknown, ...] = ()


_Wanted = TypeVar("_Wanted")


def desired_on_kubeflow(repository: Repository, now: datetime) -> Desired:
    """Return the recurring runs of all schedules, and the runs of changes of those that are not paused."""

    def want(name: str, schedule: Schedule) -> tuple[Recurring | None, list[OneRun]]:
        return _recurring(repository, name, schedule, now), _changes(repository, name, schedule)

    wanted, unknown = _each(repository, want)
    recurring = tuple(one for one, _ in wanted if one is not None)
    return Desired(recurring, _unique(run for _, runs in wanted for run in runs), unknown)


def desired_locally(repository: Repository, since: Mapping[str, datetime], now: datetime) -> Desired:
    """Return the runs of changes and of due slots; nothing recurs, since no scheduler is there but this.

    Args:
        repository: the commit.
        since: by schedule the moment from which its slots count; a schedule that is new counts from now on.
        now: the time, with a zone.
    """

    def want(name: str, schedule: Schedule) -> tuple[list[OneRun], list[OneRun]]:
        due = [] if schedule.paused else due_slots(schedule, since.get(name, now), now)
        return _changes(repository, name, schedule), [
            OneRun(
                name, repository.work(name), slot_name(slot), _slot_reason(name, slot), schedule.concurrency
            )
            for slot in due
        ]

    wanted, unknown = _each(repository, want)
    changes, slots = ([run for both in wanted for run in both[part]] for part in (0, 1))
    return Desired((), _unique([*changes, *slots]), unknown)


def _each(
    repository: Repository, want: Callable[[str, Schedule], _Wanted]
) -> tuple[list[_Wanted], tuple[Unknown, ...]]:
    """Return what each schedule wants, by name, and those that failed to tell: one task stops no other's schedules."""
    wanted, unknown = [], []
    for name, schedule in sorted(repository.schedules.items()):
        try:
            wanted.append(want(name, schedule))
        except GraftlineError as error:
            unknown.append(Unknown(name, str(error)))
    return wanted, tuple(unknown)


def _recurring(repository: Repository, name: str, schedule: Schedule, now: datetime) -> Recurring | None:
    cron = utc_cron(schedule, now)
    if cron is None:
        return None
    work = repository.work(name)
    return Recurring(name, work, cron, schedule.concurrency, schedule.catch_up, schedule.paused)


def _slot_reason(schedule: str, slot: datetime) -> dict[str, str]:
    return {"kind": "schedule", "schedule": schedule, "slot": slot_name(slot)}


def _changes(repository: Repository, name: str, schedule: Schedule) -> list[OneRun]:
    if schedule.paused:
        return []
    runs = (_of_commit(repository, name, schedule), _of_shift(repository, name, schedule))
    return [run for run in runs if run is not None]


def _of_commit(repository: Repository, name: str, schedule: Schedule) -> OneRun | None:
    changed = repository.changed(name)
    if changed is None:
        return None
    work = repository.work(name)
    kind = "data" if changed.what == ("data",) else "commit"
    reason = {
        "kind": kind, "schedule": name, "slot": f"commit-{changed.commit}", "commit": changed.commit,
        "changed": list(changed.what), "data": work.data_digest,
    }  # fmt: skip
    return OneRun(name, work, f"commit:{changed.commit}", reason, schedule.concurrency)


def _of_shift(repository: Repository, name: str, schedule: Schedule) -> OneRun | None:
    shift = repository.shift(name) if "shift" in schedule.on_change else None
    if shift is None or not shift.beyond:
        return None
    work = repository.work(name)
    slot = (
        f"shift:{work.data_digest[:16]}-{shift.champion.replace('@', '-')}"  # once for this data and champion
    )
    reason = {
        "kind": "shift", "schedule": name, "slot": slot.replace(":", "-"), "data": work.data_digest,
        "champion": shift.champion, "limit": shift.limit, "index": shift.beyond,
    }  # fmt: skip
    return OneRun(name, work, slot, reason, schedule.concurrency)


def _given(work: Work, key: str, reason: Mapping[str, Any]) -> dict[str, str]:
    """Return the pipeline's parameters for one run (see runkey.plan_run)."""
    own = {
        "revision": work.revision, "data_digest": work.data_digest, "run_key": key,
        "reason": json.dumps(dict(reason), sort_keys=True),
    }  # fmt: skip
    return dict(work.parameters) | own


def _unique(runs: Iterable[OneRun]) -> tuple[OneRun, ...]:
    """Return one run a key: two schedules of one task may want the same."""
    return tuple({run.key: run for run in reversed(list(runs))}.values())[::-1]
