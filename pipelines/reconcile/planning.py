"""What to do next so that a backend matches what a commit wants. No effects: a function of two states and the time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from graftline.pipelines.reconcile.claims import GRACE_SECONDS, Intent
from graftline.pipelines.reconcile.desired import Desired, OneRun
from graftline.pipelines.runkey import Work
from graftline.runs import Start as Begun
from graftline.runs import State


@dataclass(frozen=True)
class Seen:
    """What is known of a run that is wanted."""

    intent: tuple[Intent, str] | None = None
    """Of its slot, with the tag in the store."""
    started: tuple[str, ...] = ()
    """Ids of the runs, in the backend or by their claims, of the slot."""
    active: int = 0
    """How many runs of the schedule are at work."""


@dataclass(frozen=True)
class Actual:
    """All that is there."""

    versions: Collection[str] = frozenset()
    """Names of versions that are there."""
    awaited: Collection[str] = frozenset()
    """Names of versions that are not there yet, and that somebody else is about to bring."""
    runs: Mapping[tuple[str, str], Seen] = field(default_factory=dict)
    """By schedule and slot of a run that is wanted."""
    ended: Collection[tuple[Begun, State]] = ()
    """Runs that are over while the store has no end of them yet, and what the backend says of them."""

    def seen(self, run: OneRun) -> Seen:
        return self.runs.get((run.schedule, run.slot), Seen())


@dataclass(frozen=True)
class Upload:
    """Give the backend a version."""

    work: Work

    def __str__(self) -> str:
        return f"upload {self.work.version}"


@dataclass(frozen=True)
class Start:
    """Start a run."""

    run: OneRun
    before: tuple[Intent, str] | None
    """The intent that this start replaces."""

    def __str__(self) -> str:
        return f"start {self.run.name} ({self.run.label})"


@dataclass(frozen=True)
class Close:
    """Write in the store how a run ended that did not do so itself, and take away what it left."""

    begun: Begun
    engine: State

    def __str__(self) -> str:
        return f"close {self.begun.run} ({self.engine})"


Action = Upload | Start | Close


@dataclass(frozen=True)
class Plan:
    """The next actions, none of which depends on another, and the runs that have to wait."""

    actions: tuple[Action, ...]
    unsettled: tuple[OneRun, ...] = ()
    """Asked for, not seen yet, and too early to ask again; or of a version that is awaited."""
    queued: tuple[OneRun, ...] = ()
    """Held back by `concurrency`."""


def plan(desired: Desired, actual: Actual, now: datetime) -> Plan:
    """Return what to do next; no actions if what is there is what is wanted, or has to be waited for."""
    uploads, starts = dict[str, Action](), dict[str, Start]()
    unsettled, queued, more = list[OneRun](), list[OneRun](), dict[str, int]()
    for run in desired.runs:
        seen = actual.seen(run)
        state = run_state(run, actual, now)
        if state == "missing" and seen.active + more.get(run.schedule, 0) >= run.concurrency:
            queued.append(run)
        elif state == "missing":
            more[run.schedule] = more.get(run.schedule, 0) + 1
            if run.work.version in actual.versions:
                starts.setdefault(run.key, Start(run, seen.intent))  # two schedules may want the same
            else:
                uploads[run.work.version] = Upload(run.work)
        elif state != "started":
            unsettled.append(run)
    closings = [Close(begun, engine) for begun, engine in actual.ended]
    return Plan((*closings, *uploads.values(), *starts.values()), tuple(unsettled), tuple(queued))


def run_state(run: OneRun, actual: Actual, now: datetime) -> str:
    """Return `started`, `missing`, `unsettled` (asked for a moment ago, not seen yet) or `awaited` (its version is)."""
    seen = actual.seen(run)
    if seen.started:
        return "started"
    if seen.intent is not None and seen.intent[0].age(now) < GRACE_SECONDS:
        return "unsettled"
    return "awaited" if run.work.version in actual.awaited else "missing"
