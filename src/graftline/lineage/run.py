"""The run that made a release: why it was started, what each step said, what came from the cache, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from graftline import runs
from graftline.errors import GraftlineError
from graftline.runs import Attempt, End, Source, Start
from graftline.store import Store

NO_END = "the store has no record of its end"
AT_WORK = "at work"


@dataclass(frozen=True)
class RunHistory:
    """All that the store knows of a run. It is unsigned: what the run's steps and its engine said."""

    id: str
    start: Start | None = None
    """Why it was started; None if the store does not know it."""
    at_work: bool = False
    """Whether it has begun, or was begun again, and not ended."""
    ends: tuple[End, ...] = ()
    """The last one last; several if a person tried it again after it had ended."""
    attempts: tuple[Attempt, ...] = ()
    """Its own, in the order in which they ended."""
    cached: Mapping[str, Source] = field(default_factory=dict)
    """What another run made and the engine took from its cache, by the input's name."""
    makers: Mapping[str, Attempt] = field(default_factory=dict)
    """The attempt that made an output, in this run or in the one that the cache took it from, by its record."""
    trouble: str = ""
    """What of this could not be read, and why; empty if all could."""

    @property
    def earlier(self) -> tuple[End, ...]:
        """The ends after which it was tried again."""
        return self.ends if self.at_work else self.ends[:-1]

    @property
    def state(self) -> str:
        """How it ended, in one line; or that it did not."""
        if self.at_work:
            return AT_WORK
        if not self.ends:
            return self.trouble or NO_END
        return told(self.ends[-1])

    @property
    def reason(self) -> str:
        """Why it was started, in one line; empty if nobody said."""
        given = self.start.reason if self.start else {}
        kind = [str(given["kind"])] if given.get("kind") and given["kind"] not in given else []
        return ", ".join(kind + [f"{name} {value}" for name, value in given.items() if name != "kind"])

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"state": self.state}


def read_run(store: Store, run: str) -> RunHistory:
    """Return what the store knows of a run, with the attempts of other runs whose outputs it took from the cache.

    It reads a handful of small objects: what asks of many runs at once must not call it. What cannot be read is
    said in `trouble`, since a note that somebody changed must not hide the rest of a lineage.
    """
    found, trouble = RunHistory(run), list[str]()
    try:
        begun = runs.begun(store, run)
        found = replace(found, start=begun, at_work=begun is not None)
        ends = tuple(runs.ends(store, run))
        found = replace(found, ends=ends, start=begun or (ends[-1].start if ends else None))
    except GraftlineError as error:
        trouble.append(str(error))
    try:
        found = replace(found, attempts=tuple(runs.attempts(store, run)))
        found = replace(found, cached=_cached(found), makers=_makers(found.attempts))
        others = sorted({source.run for source in found.cached.values()})
        made = [attempt for other in others for attempt in runs.attempts(store, other)]
        found = replace(found, makers=_makers([*made, *found.attempts]))
    except GraftlineError as error:
        trouble.append(str(error))
    return replace(found, trouble="; ".join(trouble))


def _cached(run: RunHistory) -> dict[str, Source]:
    given = {name: source for attempt in run.attempts for name, source in attempt.inputs.items()}
    return {name: source for name, source in given.items() if source.run and source.run != run.id}


def _makers(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    return {attempt.record: attempt for attempt in attempts if attempt.record and not attempt.code}


def told(end: End) -> str:
    """Return how a run ended, in one line."""
    decided = end.line if not end.step or end.line.startswith(f"{end.step}: ") else f"{end.step}: {end.line}"
    return end.state + (f" at {end.ended}" if end.ended else "") + (f"; {decided}" if decided else "")


def seconds(attempt: Attempt) -> float | None:
    """Return how long an attempt took; None if its times are none."""
    try:
        taken = datetime.fromisoformat(attempt.ended) - datetime.fromisoformat(attempt.started)
    except (ValueError, TypeError):
        return None
    return taken.total_seconds()


def account(attempt: Attempt) -> str:
    """Return how long an attempt took and where it ran, as far as it is known: pod, node, image."""
    took, image = seconds(attempt), attempt.image.rpartition("sha256:")[2]
    parts = {"pod": attempt.pod, "node": attempt.node, "image": image[:12]}
    known = [f"{name} {value}" for name, value in parts.items() if value]
    return ", ".join(["an unknown time" if took is None else f"{took:.0f} s", *known])
