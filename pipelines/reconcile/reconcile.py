"""Look, plan, act, and look again, until a backend matches what a commit wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from graftline.errors import BackendError
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.desired import Desired, OneRun, Unknown
from graftline.pipelines.reconcile.planning import Action, Actual, Plan, plan

ROUNDS = 12
"""A run needs 2: upload, start; one more looks. The rest is for lost answers and for slots that come meanwhile."""
TRIES = 5
"""Rounds in a row in which every call failed, after which the next reconcile is to try."""


class Backend(Protocol):
    """Where runs happen."""

    def observe(self, desired: Desired, now: datetime) -> Actual:
        """Return what is there of what is wanted. Raises BackendError."""
        ...

    def apply(self, action: Action, now: datetime) -> None:
        """Carry out one action, or find that it was done already.

        Raises:
            BackendError: it was refused, or whether it was done is unknown: look again.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What one reconcile did."""

    done: tuple[Action, ...]
    failures: tuple[str, ...]
    """One line a call that failed, also where a later look showed that it had been carried out."""
    left: tuple[Action, ...]
    """What is still to do: nothing, unless calls failed."""
    unsettled: tuple[OneRun, ...]
    queued: tuple[OneRun, ...]
    unknown: tuple[Unknown, ...] = ()
    """Schedules of which it could not be told what they want; nothing was done about them."""

    @property
    def settled(self) -> bool:
        """Whether what is there is what is wanted, apart from runs that `concurrency` holds back."""
        return not self.left and not self.unsettled and not self.unknown


def reconcile(
    backend: Backend,
    agenda: Agenda,
    clock: Callable[[], datetime],
    *,
    on_action: Callable[[Action | None], None] = lambda action: None,
    pause: Callable[[], None] = lambda: None,
) -> Outcome:
    """Make `backend` match what is desired.

    Args:
        backend: where runs happen.
        agenda: what should have been started.
        clock: returns the time, with a zone.
        on_action: called before each action, with None before the first look; may raise to stop.
        pause: called after a round in which every call failed.

    Raises:
        BackendError: what is there could not be told.
    """

    def look() -> tuple[datetime, Desired, Plan]:
        now = clock()
        desired = agenda.desired(now)
        actual = backend.observe(desired, now)
        agenda.note(desired, actual)
        return now, desired, plan(desired, actual, now)

    on_action(None)
    agenda.begin(clock())
    done, failures, fruitless = list[Action](), list[str](), 0
    for _ in range(ROUNDS):
        now, desired, step = look()
        before = len(done)
        for action in step.actions:
            on_action(action)
            try:
                backend.apply(action, now)
            except BackendError as error:
                failures.append(f"{action}: {error}")
            else:
                done.append(action)
        fruitless = 0 if len(done) > before else fruitless + 1
        if not step.actions or fruitless == TRIES:
            break
        if fruitless:
            pause()
    else:
        _, desired, step = look()  # what the last round did is not left
    return Outcome(tuple(done), tuple(failures), step.actions, step.unsettled, step.queued, desired.unknown)
