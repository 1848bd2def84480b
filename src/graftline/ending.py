"""How a run ended: the steps' own words and the engine's account of it, made into one end.

The exit handler, `graftline reconcile` and the local engine all close a run by `close`. What the engine knows comes
from Kubeflow's API (`engine_state`); in the exit handler, which is told RUNNING of a run that was cancelled, from the
run's Workflow (pipelines/workflow.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from graftline import runs
from graftline.profiles import STEPS
from graftline.store import Store

ORDER = tuple(step for step in STEPS if step != "conclude")
_RELEASES = "publish"


def close(store: Store, start: runs.Start, engine: runs.State, why: Mapping[str, str] | None = None) -> runs.End:
    """Store how a run ended and return it; the same again changes nothing. See `end_of`."""
    end = end_of(start, runs.attempts(store, start.run), engine, why)
    runs.conclude(store, end)
    return end


def end_of(
    start: runs.Start, said: Sequence[runs.Attempt], engine: runs.State, why: Mapping[str, str] | None = None
) -> runs.End:
    """Return how a run ended.

    Args:
        start: the run.
        said: every word of its steps; those of its last round count.
        engine: what the engine says of it.
        why: what the engine says of steps that left no word, by step; under "" what it says of the run.
    """
    last = max((attempt.round for attempt in said), default=0)
    said = [attempt for attempt in said if attempt.round == last and attempt.step in ORDER]
    ended = said[-1].ended if said else ""
    if any(attempt.step == _RELEASES and attempt.code == 0 for attempt in said):
        engine = "SUCCEEDED"  # it released, whatever became of the step after that
    state, step, line = runs.decide(said, engine, ORDER)
    if not step and state != "SUCCEEDED" and why:
        step = next((step for step in ORDER if step in why), "")
        line = why.get(step, "")
    return runs.End(start, state, step, line, ended)


def engine_state(run: Any, deadline: timedelta) -> runs.State:
    """Return what Kubeflow's API says of a run that is over (`V2beta1Run`).

    A cancelled one has been CANCELING; one that took too long went from RUNNING to FAILED and took its `deadline`,
    which Kubeflow takes from a run that is retried.
    """
    if run.state == "SUCCEEDED":
        return "SUCCEEDED"
    history = [status.state for status in run.state_history or ()]
    if (
        run.state == "CANCELED"
        or "CANCELING" in history[max((i for i, state in enumerate(history) if state == "RUNNING"), default=0) :]
    ):
        return "CANCELED"
    alone = history.count("RUNNING") == 1 and run.created_at and run.finished_at
    return "OVERDUE" if alone and run.finished_at - run.created_at >= deadline else "FAILED"
