"""Desired against actual, as rows: what `graftline drift` prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from graftline.pipelines.reconcile.desired import Desired, OneRun, Recurring
from graftline.pipelines.reconcile.planning import Actual, ActualRecurring, Seen, keeper, plan, run_state

SAME, DRIFT, UNKNOWN = "same", "drift", "unknown"


@dataclass(frozen=True)
class Row:
    """One thing that is wanted, or is there, or both."""

    name: str
    desired: str
    actual: str
    verdict: str
    """`same`, `drift` or `unknown`."""


def rows(desired: Desired, actual: Actual, now: datetime) -> list[Row]:
    """Return one row a recurring run, wanted or there, one a run that is wanted, one a schedule that is not known."""
    wanted = {one.schedule: one for one in desired.recurring}
    unknown = {one.schedule for one in desired.unknown}
    found = [Row(one.schedule, one.reason, "", UNKNOWN) for one in desired.unknown]
    for schedule in sorted((wanted.keys() | {one.schedule for one in actual.recurring}) - unknown):
        own = [one for one in actual.recurring if one.schedule == schedule]
        found += _recurring_rows(schedule, wanted.get(schedule), own)
    queued = plan(desired, actual, now).queued
    return found + [
        _run_row(run, actual.runs.get(run.key, Seen()), now, queued=run in queued) for run in desired.runs
    ]


def exit_code(found: list[Row]) -> int:
    """Return 0 if all is the same, 1 for drift, 2 if something could not be told."""
    verdicts = {row.verdict for row in found}
    return 2 if UNKNOWN in verdicts else 1 if DRIFT in verdicts else 0


def _recurring_rows(schedule: str, wanted: Recurring | None, own: list[ActualRecurring]) -> list[Row]:
    kept = keeper(wanted, own)
    found = []
    if wanted is not None:
        state = _state(not wanted.paused)
        there = "missing" if kept is None else _state(kept.enabled)
        same = kept is not None and kept.enabled != wanted.paused
        text = f"{wanted.work.version}, {wanted.cron} UTC, {state}"
        name = f"{schedule} ({wanted.identity})"
        found.append(Row(name, text, there, SAME if same else DRIFT))
    for one in own:
        if one is not kept:
            found.append(Row(f"{schedule} ({one.identity})", "nothing", _state(one.enabled), DRIFT))
    return found


def _state(enabled: bool) -> str:
    return "enabled" if enabled else "paused"


def _run_row(run: OneRun, seen: Seen, now: datetime, *, queued: bool) -> Row:
    state = "queued" if queued else run_state(seen, now)
    verdict = {"started": SAME, "queued": SAME, "missing": DRIFT, "unsettled": UNKNOWN}[state]
    words = {
        "started": f"run {seen.started[0]}" if seen.started else "",
        "queued": f"waits: {seen.active} of {run.concurrency} at work",
        "unsettled": "asked for, not seen yet",
    }
    return Row(run.label, f"a run of {run.work.version}", words.get(state, state), verdict)
