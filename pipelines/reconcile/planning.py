"""What to do next so that a backend matches what a commit wants. No effects: a function of two states and the time.

A recurring run cannot be changed in place and has no request id. So each schedule goes through steps, and after
each the backend is looked at again:

    create the new one, paused    with its identity in its name: found again if the answer was lost
    pause the old
    unpause the new               only once nothing else of the schedule is enabled
    delete the old                its past runs stay

Of two with the same identity (two reconciles at once, an answer that was lost) the older is kept. Which step is next
follows from what is there, so a crash between any two leaves nothing to repair but the rest of the steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from graftline.pipelines.reconcile.claims import GRACE_SECONDS, Intent
from graftline.pipelines.reconcile.desired import Desired, OneRun, Recurring
from graftline.pipelines.reconcile.repository import Work


@dataclass(frozen=True)
class ActualRecurring:
    """A recurring run that is there and was made here."""

    id: str
    schedule: str
    identity: str
    enabled: bool
    created: datetime

    @property
    def name(self) -> str:
        return f"{self.schedule}.{self.identity}"


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
    recurring: tuple[ActualRecurring, ...] = ()
    runs: Mapping[str, Seen] = field(default_factory=dict)
    """By the key of a run that is wanted."""


@dataclass(frozen=True)
class Upload:
    """Give the backend a version."""

    work: Work

    def __str__(self) -> str:
        return f"upload {self.work.version}"


@dataclass(frozen=True)
class Create:
    """Create a recurring run, paused."""

    recurring: Recurring

    def __str__(self) -> str:
        return f"create {self.recurring.name}, paused"


@dataclass(frozen=True)
class Switch:
    """Pause a recurring run, or unpause it."""

    target: ActualRecurring
    enable: bool

    def __str__(self) -> str:
        return f"{'unpause' if self.enable else 'pause'} {self.target.name}"


@dataclass(frozen=True)
class Delete:
    """Delete a recurring run that is paused; its past runs stay."""

    target: ActualRecurring

    def __str__(self) -> str:
        return f"delete {self.target.name}"


@dataclass(frozen=True)
class Start:
    """Start a run."""

    run: OneRun
    before: tuple[Intent, str] | None
    """The intent that this start replaces."""

    def __str__(self) -> str:
        return f"start {self.run.name} ({self.run.label})"


Action = Upload | Create | Switch | Delete | Start


@dataclass(frozen=True)
class Plan:
    """The next actions, none of which depends on another, and the runs that have to wait."""

    actions: tuple[Action, ...]
    unsettled: tuple[OneRun, ...] = ()
    """Asked for, not seen yet, and too early to ask again."""
    queued: tuple[OneRun, ...] = ()
    """Held back by `concurrency`."""


def plan(desired: Desired, actual: Actual, now: datetime) -> Plan:
    """Return what to do next; no actions if what is there is what is wanted, or has to be waited for."""
    actions: list[Action] = _uploads(desired, actual)
    wanted = {recurring.schedule: recurring for recurring in desired.recurring}
    unknown = {one.schedule for one in desired.unknown}  # what is there of them stays as it is
    for schedule in sorted((wanted.keys() | {one.schedule for one in actual.recurring}) - unknown):
        own = [one for one in actual.recurring if one.schedule == schedule]
        actions += _recurring_steps(wanted.get(schedule), own, actual)
    unsettled, queued, starts = [], [], dict[str, int]()
    for run in desired.runs:
        seen = actual.runs.get(run.key, Seen())
        state = run_state(seen, now)
        if state == "unsettled":
            unsettled.append(run)
        elif state == "missing" and run.work.version in actual.versions:
            if seen.active + starts.get(run.schedule, 0) >= run.concurrency:
                queued.append(run)
            else:
                starts[run.schedule] = starts.get(run.schedule, 0) + 1
                actions.append(Start(run, seen.intent))
    return Plan(tuple(actions), tuple(unsettled), tuple(queued))


def run_state(seen: Seen, now: datetime) -> str:
    """Return `started`, `missing`, or `unsettled`: asked for a moment ago and not seen yet."""
    if seen.started:
        return "started"
    if seen.intent is not None and seen.intent[0].age(now) < GRACE_SECONDS:
        return "unsettled"
    return "missing"


def keeper(recurring: Recurring | None, own: list[ActualRecurring]) -> ActualRecurring | None:
    """Return the one that is to stay of those that are there for a schedule."""
    same = [one for one in own if recurring is not None and one.identity == recurring.identity]
    return min(same, key=lambda one: (one.created, one.id), default=None)


def _uploads(desired: Desired, actual: Actual) -> list[Action]:
    to_start = [run for run in desired.runs if not actual.runs.get(run.key, Seen()).started]
    wanted: list[OneRun | Recurring] = [*to_start, *desired.recurring]
    works = {one.work.version: one.work for one in wanted}
    return [Upload(work) for version, work in sorted(works.items()) if version not in actual.versions]


def _recurring_steps(wanted: Recurring | None, own: list[ActualRecurring], actual: Actual) -> list[Action]:
    """Return the next step for one schedule."""
    kept = keeper(wanted, own)
    if wanted is not None and kept is None:
        return [Create(wanted)] if wanted.work.version in actual.versions else []
    others = [one for one in own if one is not kept]
    if enabled := [one for one in others if one.enabled]:
        return [Switch(one, False) for one in enabled]
    if wanted is not None and kept is not None and kept.enabled == wanted.paused:
        return [Switch(kept, not wanted.paused)]
    return [Delete(one) for one in others]
