"""What the store knows of runs: that one has begun, what each of its steps said, how it ended.

    runs/open/<run>.json               begun and not ended yet: what its end will repeat
    runs/steps/<run>/<step>.<n>.json   a step's own word on its n-th attempt, written last
    runs/<run>.json                    how it ended; <run>.2.json: it was retried, and ended otherwise

<run> is the run's one id, the one that a release, the pods' label and $GRAFTLINE_RUN carry: Kubeflow's id of the run on
a cluster, the run key where this machine is the engine.

An engine's own account is not enough. Kubeflow's launcher ends with 1 whatever a step ended with, its API has no
reason, and its exit handler is told RUNNING of a run that was cancelled: so each step says itself how it ended, and
`decide` reads that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from graftline.errors import EXIT_REFUSED, GraftlineError
from graftline.store import Store
from graftline.store.documents import json_bytes, stored_json

State = Literal["SUCCEEDED", "FAILED", "REFUSED", "CANCELED", "OVERDUE", "LOST"]
"""How a run ended. REFUSED: a gate or a claim said no; CANCELED: a person ended it; OVERDUE: it took longer than it
may; LOST: the engine no longer knows it, and no step said how it ended."""
STATES: tuple[State, ...] = get_args(State)
MAX_LINE = 2000
"""Characters of a step's line that are kept: it may quote a log."""


Document = TypeVar("Document", "Start", "Source", "Attempt", "End")


@dataclass(frozen=True)
class Start:
    """A run that has begun."""

    run: str
    """Its id."""
    key: str
    """The run key; the id where a person started the run in Kubeflow's page."""
    task: str
    version: str = ""
    """Name of the pipeline's version."""
    revision: str = ""
    """The commit that its data comes from."""
    data_digest: str = ""
    reason: Mapping[str, Any] = field(default_factory=dict)
    """Why it was started."""


@dataclass(frozen=True)
class Source:
    """Where a step's input came from."""

    record: str
    """sha256 of the input's record; of the data itself where it has none."""
    run: str = ""
    """The run that made it: another one where the engine took it from its cache."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a step, in its own words."""

    run: str
    step: str
    code: int
    """Exit code: 0 done, 2 bad input, 3 refused, 75 pre-empted, 1 or above 128 anything else."""
    line: str
    """The one line that says why; of a step that is done mostly "", of publish what is to be known of the release."""
    started: str
    """ISO 8601, UTC."""
    ended: str
    number: int = 0
    """From 1, over all starts of the step in this run; 0 until it is stored."""
    round: int = 0
    """How often the run had ended before this attempt: a person who retries a run begins a new budget."""
    pod: str = ""
    node: str = ""
    image: str = ""
    """Its digest."""
    record: str = ""
    """sha256 of the output's record."""
    inputs: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """How a run ended."""

    start: Start
    state: State
    step: str = ""
    """The step that decided; "" if none did."""
    line: str = ""
    """Why, in that step's words or the engine's."""
    ended: str = ""
    """When its last step ended, ISO 8601, UTC; "" if none said so."""


def begin(store: Store, start: Start) -> None:
    """Note that a run has begun. The same again changes nothing."""
    store.put_if_absent(_open_key(start.run), json_bytes(asdict(start)))


def begun(store: Store, run: str) -> Start | None:
    """Return what is known of a run that has begun and has no end yet."""
    found = stored_json(store, _open_key(run))
    return None if found is None else _start(found[0], _open_key(run))


def begin_again(store: Store, run: str) -> int:
    """Note that a run that may have ended is at work again; return how often it had ended.

    A person retries a run in Kubeflow's page; its exit handler does not run a second time.
    """
    found = ends(store, run)
    if found:
        begin(store, found[-1].start)
    return len(found)


def open_runs(store: Store, unreadable: Callable[[GraftlineError], None] | None = None) -> list[Start]:
    """Return the runs that have begun and have no end.

    Args:
        store: where they are noted.
        unreadable: told of a note that cannot be read, which is left out; None raises the error.
    """
    found = []
    for key in store.list("runs/open/"):
        try:
            start = begun(store, key.removeprefix("runs/open/").removesuffix(".json"))
        except GraftlineError as error:
            if unreadable is None:
                raise
            unreadable(error)
        else:
            found += [start] if start else []
    return found


def add_attempt(store: Store, attempt: Attempt) -> Attempt:
    """Store a step's word under the next number; return it with that number."""
    prefix = f"{_step_prefix(attempt.run)}{attempt.step}."
    for number in itertools.count(1 + len(store.list(prefix))):
        numbered = replace(attempt, number=number, line=attempt.line[:MAX_LINE])
        if store.put_if_absent(f"{prefix}{number}.json", json_bytes(asdict(numbered))):
            return numbered
    raise AssertionError("unreachable")


def attempts(store: Store, run: str, step: str = "") -> list[Attempt]:
    """Return what the steps of a run said, in the order in which they ended; of one step if it is named."""
    prefix = f"{_step_prefix(run)}{step}." if step else _step_prefix(run)
    found = [_attempt(document[0], key) for key in store.list(prefix) if (document := stored_json(store, key))]
    return sorted(found, key=lambda one: (one.ended, one.number))


def conclude(store: Store, end: End) -> str:
    """Store how a run ended and close it; return the key. The same end again changes nothing."""
    run = end.start.run
    for number in itertools.count(max(1, len(ends(store, run)))):
        key = _end_key(run, number)
        if store.put_if_absent(key, json_bytes(asdict(end.start) | _own(end))):
            store.delete(_open_key(run))
            return key
    raise AssertionError("unreachable")


def ends(store: Store, run: str) -> list[End]:
    """Return the ends of a run, the last one last; empty for one that has not ended."""
    found: list[End] = []
    for number in itertools.count(1):
        document = stored_json(store, _end_key(run, number))
        if document is None:
            return found
        found.append(_end(document[0], _end_key(run, number)))
    raise AssertionError("unreachable")


def decide(said: Sequence[Attempt], engine: State, order: Iterable[str]) -> tuple[State, str, str]:
    """Return state, deciding step and its line, from the steps' words and the engine's account.

    Args:
        said: the attempts of the run's last round, in the order in which they ended.
        engine: what the engine says; it knows of cancels and deadlines, and of success.
        order: of the steps in the graph: of several that failed the first one decides.
    """
    last = {attempt.step: attempt for attempt in said}
    ended = [last[step] for step in order if step in last]
    if engine == "SUCCEEDED":  # publish says so if it made no new version
        told = next((attempt for attempt in ended if not attempt.code and attempt.line), None)
        return (engine, told.step, told.line) if told else (engine, "", "")
    failed = next((attempt for attempt in ended if attempt.code), None)
    if failed is None:
        return engine, "", ""
    if engine in ("CANCELED", "OVERDUE"):
        return engine, failed.step, failed.line
    return ("REFUSED" if failed.code == EXIT_REFUSED else "FAILED"), failed.step, failed.line


def _open_key(run: str) -> str:
    return f"runs/open/{run}.json"


def _step_prefix(run: str) -> str:
    return f"runs/steps/{run}/"


def _end_key(run: str, number: int) -> str:
    return f"runs/{run}.json" if number == 1 else f"runs/{run}.{number}.json"


def _own(end: End) -> dict[str, Any]:
    return {"state": end.state, "step": end.step, "line": end.line[:MAX_LINE], "ended": end.ended}


def _start(value: Any, key: str) -> Start:
    return _read(Start, value, key)


def _attempt(value: Any, key: str) -> Attempt:
    attempt = _read(Attempt, value, key)
    inputs = {name: _read(Source, source, key) for name, source in attempt.inputs.items()}
    return replace(attempt, inputs=inputs)


def _end(value: Any, key: str) -> End:
    start = _start(value, key)
    own = {name: value.get(name, "") for name in ("state", "step", "line", "ended")}
    if own["state"] not in STATES:
        raise GraftlineError(f"{key}: state {own['state']!r} is none of {', '.join(STATES)}")
    return _read(End, own | {"start": start}, key)


_FORMS: dict[str, type] = {"str": str, "State": str, "int": int, "Start": Start}
"""The type of a field by its annotation; of every other one it is a mapping."""


def _read(kind: type[Document], value: Any, key: str) -> Document:
    """Make a dataclass of a document, whatever a later version has added to it."""
    try:
        given = {each.name: value[each.name] for each in fields(kind) if each.name in value}
        for each in fields(kind):
            form = _FORMS.get(str(each.type), dict)
            if each.name in given and type(given[each.name]) is not form:
                raise TypeError(f"{each.name} is no {form.__name__}")
        return kind(**given)
    except TypeError as error:
        what = kind.__name__.lower()
        raise GraftlineError(f"{key}: not the {what} of a run ({error}); it was changed by hand") from None
