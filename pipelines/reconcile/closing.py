"""Stands in for graftline.pipelines.ending until that is here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from graftline import runs
from graftline.profiles import STEPS
from graftline.store import Store


def close(store: Store, begun: runs.Start, engine: runs.State) -> runs.End:
    rounds = len(runs.ends(store, begun.run))
    said = [one for one in runs.attempts(store, begun.run) if one.round == rounds]
    state, step, line = runs.decide(said, engine, ("claim", *STEPS))
    end = runs.End(begun, state, step, line, said[-1].ended if said else "")
    runs.conclude(store, end)
    return end


def engine_state(run: Any, deadline: timedelta) -> runs.State:
    if run.state == "SUCCEEDED":
        return "SUCCEEDED"
    states = [one.state for one in run.state_history or []][:-1]
    while "FAILED" in states:
        states = states[states.index("FAILED") + 1 :]
    if "CANCELING" in states or run.state in ("CANCELED", "CANCELING"):
        return "CANCELED"
    return "OVERDUE" if run.finished_at - run.created_at >= deadline else "FAILED"
