"""Desired against actual, as rows: what `graftline drift` prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from graftline.pipelines.reconcile.desired import Desired
from graftline.pipelines.reconcile.planning import Actual, plan, run_state

SAME, DRIFT, UNKNOWN = "same", "drift", "unknown"
_VERDICTS = {"started": SAME, "queued": SAME, "missing": DRIFT, "unsettled": UNKNOWN, "awaited": DRIFT}


@dataclass(frozen=True)
class Row:
    """One run that is wanted, or that has ended, or a schedule that cannot be told."""

    name: str
    desired: str
    actual: str
    verdict: str
    """`same`, `drift` or `unknown`."""


def rows(desired: Desired, actual: Actual, now: datetime) -> list[Row]:
    """Return one row a schedule that is not known, one a run that is wanted, one a run whose end is not recorded."""
    found = [Row(one.schedule, one.reason, "", UNKNOWN) for one in desired.unknown]
    queued = plan(desired, actual, now).queued
    for run in desired.runs:
        seen = actual.seen(run)
        state = "queued" if run in queued else run_state(run, actual, now)
        words = {
            "started": f"run {seen.started[0]}" if seen.started else "",
            "queued": f"waits: {seen.active} of {run.concurrency} at work",
            "unsettled": "asked for, not seen yet",
            "awaited": "waits: its version is not applied yet",
        }
        found.append(Row(run.label, f"a run of {run.work.version}", words.get(state, state), _VERDICTS[state]))
    return found + [
        Row(f"run {begun.run}", "an end in the store", f"none; it is {state}", DRIFT) for begun, state in actual.ended
    ]


def exit_code(found: list[Row]) -> int:
    """Return 0 if all is the same, 1 for drift, 2 if something could not be told."""
    verdicts = {row.verdict for row in found}
    return 2 if UNKNOWN in verdicts else 1 if DRIFT in verdicts else 0
