"""Start a run on Kubeflow Pipelines and follow it to its end.

The version is uploaded under its own name if the server lacks it, and the run names it: without a version Kubeflow
takes the newest created. A run is found again by its name, which ends in the run key, so the same run is not started
twice; of two that were started at once the claim in the store says which does the work.

Kubeflow's API shows how far a run is, and neither why a step failed nor how a run ended. That is in the store, in the
steps' own words; where the store cannot be read, the log of the failed step has the line and the exit code.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from graftline import ending, runs
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, BackendError, GraftlineError
from graftline.kubeflow_api import KubeflowApi, NotFoundError, RefusedError, Version, parameters
from graftline.pipelines.reconcile.claims import holder
from graftline.pipelines.runkey import Run, Work
from graftline.pipelines.workflow import waits_for
from graftline.profiles import STEPS
from graftline.settings import Settings
from graftline.store import Store
from graftline.store.opening import open_store

CACHED, NEVER = "from the cache", "did not run"
PATIENCE = 10
"""How many looks in a row may fail before following a run is given up; the run itself goes on."""
WAITS_SECONDS = 60.0
"""After which a run in which nothing changes is asked what it waits for."""
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""Kubeflow 2.17 never uses the last two."""
_STATUS = re.compile(r"exit status (\d+)")
_KLOG = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ \S+\] ")
"""Begins the launcher's own lines."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    run: str
    steps: Mapping[str, str] = field(default_factory=dict)
    """Of each step that the server tells of: running, succeeded, failed, CACHED or NEVER."""
    said: Mapping[str, runs.Attempt] = field(default_factory=dict)
    """What a step that failed says itself."""
    pending: bool = False
    """Whether a pod has not started."""
    waits: str | None = ""
    """Why nothing goes on; None if it cannot be told."""
    end: runs.End | None = None

    @property
    def exit_code(self) -> int:
        """How the command ends: as the step that decided."""
        assert self.end is not None
        said = self.said.get(self.end.step)
        if self.end.state in ("SUCCEEDED", "REFUSED"):
            return 0 if self.end.state == "SUCCEEDED" else EXIT_REFUSED
        known = (EXIT_INPUT, EXIT_REFUSED, EXIT_PREEMPTED)
        return said.code if said and said.code in known else GraftlineError.exit_code


@dataclass(frozen=True)
class Submitted:
    """A run on the server."""

    id: str
    key: str
    link: str
    before: str
    """The state of a run of this key that was there already; "" if this one is new."""


class Submission:
    """One server's experiment, for runs that people start."""

    def __init__(self, api: KubeflowApi, endpoint: str, store: str, settings: Settings) -> None:
        """Use an API; links are made of its `endpoint`. Where `store` cannot be read from here, runs' logs are."""
        self._api, self._endpoint, self._store_url = api, endpoint.rstrip("/"), store
        self._namespace, self._deadline = settings.namespace, timedelta(hours=settings.deadline_hours)

    def submit(self, run: Run) -> Submitted:
        """Start `run`, unless one of its key is there already.

        Raises:
            BackendError: the server refused, or its answer was lost; the same call again finds what was made.
        """
        if found := self._find(run):
            return found
        made = self._api.create_run(run.name, self._version(run.work), run.parameters)
        return Submitted(made, run.key, self._link(made), before="")

    def _find(self, run: Run) -> Submitted | None:
        """Return the run that does or did the work of the key; else one that may; the others were told to stop."""
        there = {one.run_id: one.state or "PENDING" for one in self._api.find_runs(run.name, run.key)}
        worker = self._holder(run.key)
        if not there and not worker:
            return None
        chosen = worker or min(there, key=lambda one: there[one] == "FAILED")
        ended = self._closed(chosen)
        return Submitted(chosen, run.key, self._link(chosen), ended.state if ended else there.get(chosen, "LOST"))

    def _version(self, work: Work) -> Version:
        """Return the pipeline's version, which is uploaded if it is missing: by somebody else perhaps, just now."""
        for attempt in range(3):
            if found := self._api.versions(work.pipeline).get(work.version):
                return found
            try:
                return self._api.upload(work.pipeline, work.version, work.spec)
            except BackendError as error:
                if isinstance(error, RefusedError) or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def follow(self, submitted: Submitted, seconds: float) -> Iterator[Progress]:
        """Yield how far the run is every few seconds until it ends; a look that fails is tried again.

        Where another run does the work of the key, that one is followed from then on.

        Raises:
            BackendError: the server did not answer several times in a row.
        """
        run_id, failures, before, since = submitted.id, 0, Progress(""), time.monotonic()
        while True:
            try:
                progress = self.progress(run_id, before)
            except NotFoundError:
                raise
            except BackendError:
                failures += 1
                if failures == PATIENCE:
                    raise
                time.sleep(seconds)
                continue
            failures = 0
            if progress.steps != before.steps:
                since = time.monotonic()
            elif not progress.end and time.monotonic() - since >= WAITS_SECONDS:
                progress, since = self._asked(progress), time.monotonic()
            yield progress
            if progress.steps.get("claim") == "failed":
                worker = self._holder(submitted.key)
                if worker and worker != run_id:
                    run_id, before = worker, Progress("")
                    continue
            if progress.end:
                return
            before = progress
            time.sleep(seconds)

    def _asked(self, progress: Progress) -> Progress:
        """Ask the cluster what a run waits for, and the store whether it has ended: of a ghost only that knows."""
        waits = waits_for(self._namespace, progress.run)
        if waits is None and not progress.pending:
            waits = ""
        return replace(progress, waits=waits, end=self._closed(progress.run))

    def progress(self, run_id: str, before: Progress) -> Progress:
        """Return how far a run is, `before` having been known. Raises BackendError."""
        try:
            run = self._api.get_run(run_id)
        except NotFoundError:  # somebody deleted it; what came of it is in the store
            if end := self._closed(run_id):
                return Progress(run_id, said=self._words(run_id), end=end)
            raise
        over = run.state in _ENDED
        steps = step_states(run, over)
        failed = [step for step, state in steps.items() if state == "failed"]
        said = dict(before.said)
        if over or set(failed) - set(said):
            said |= self._words(run_id)
            for step in failed:  # one that says 0 has failed all the same: the launcher could not take its outputs
                if (step not in said or not said[step].code) and (found := self._read_log(run_id, run, step)):
                    said[step] = found
        end = self._end(run_id, run, said) if over else None
        pending = any(task.state == "PENDING" for task in _tasks(run))
        return Progress(run_id, steps, said, pending, end=end)

    def _words(self, run_id: str) -> dict[str, runs.Attempt]:
        """Return what steps said last, by step."""
        words = self._read(lambda store: runs.attempts(store, run_id)) or []
        last = max((word.round for word in words), default=0)
        return {word.step: word for word in words if word.round == last}

    def _read_log(self, run_id: str, run: Any, step: str) -> runs.Attempt | None:
        for pod in reversed(pods_of(run, step)):
            try:
                code, line = said_in(step, self._api.read_log(run_id, pod))
            except GraftlineError:
                continue
            return runs.Attempt(run_id, step, code, line, "", "")
        return None

    def _end(self, run_id: str, run: Any, said: Mapping[str, runs.Attempt]) -> runs.End:
        """Return how a run ended: as the store has it, or as it will once reconcile has closed the run."""
        if ended := self._closed(run_id):
            return ended
        given = parameters(run)
        start = runs.Start(run_id, str(given.get("run_key") or run_id), str(given.get("task") or ""))
        return ending.end_of(start, list(said.values()), ending.engine_state(run, self._deadline))

    def _closed(self, run_id: str) -> runs.End | None:
        """Return the end of a run as the store has it; None of one that is open, for the first time or again."""
        is_open = self._read(lambda store: runs.begun(store, run_id))
        ends = None if is_open else self._read(lambda store: runs.ends(store, run_id))
        return ends[-1] if ends else None

    def _holder(self, key: str) -> str | None:
        found: str | None = self._read(lambda store: holder(store, key))
        return found

    def _read(self, ask: Callable[[Store], Any]) -> Any:
        """Return what the store says; None where it cannot be read: asked once, since retries take their time."""
        try:
            return ask(open_store(self._store_url)) if self._store_url else None
        except (GraftlineError, OSError) as error:
            print(f"graftline: {error}; what steps say is read from their logs", file=sys.stderr)
            self._store_url = ""
            return None

    def _link(self, run_id: str) -> str:
        return f"{self._endpoint}/#/runs/details/{run_id}"


def step_states(run: Any, over: bool) -> dict[str, str]:
    """Return the state of each step that a run (`V2beta1Run`) tells of.

    A step that never ran has no state; one that was taken from the cache has SUCCEEDED, above an executor that was
    SKIPPED. Every step has a task of that name, and no task says whose it is: they begin together.
    """
    found = {}
    for step in STEPS:
        if (task := _task(run, step)) is None or not (task.state or over):
            continue
        executor = _executor(run, task)
        cached = task.state == "SUCCEEDED" and executor is not None and executor.state == "SKIPPED"
        found[step] = CACHED if cached else (task.state or NEVER).lower()
    return found


def pods_of(run: Any, step: str) -> list[str]:
    """Return the pods of a step, in the order of its tries."""
    task = _task(run, step)
    executor = task and _executor(run, task)
    return [child.pod_name for child in executor.child_tasks or ()] if executor else []


def said_in(step: str, log: str) -> tuple[int, str]:
    """Return exit code and line of a step from its pod's log: its own last one, else whatever came last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    printed = [line for line in lines if not _KLOG.match(line)]
    own = [line for line in printed if line.startswith((f"{step}: ", "trainjob"))]
    line = (own or printed or [f"{step}: {_KLOG.sub('', line)}" for line in lines] or [""])[-1]
    codes = _STATUS.findall(log)
    return (int(codes[-1]) if codes else GraftlineError.exit_code), line


def _task(run: Any, name: str) -> Any:
    return next((task for task in _tasks(run) if task.display_name == name), None)


def _executor(run: Any, step: Any) -> Any:
    own = (one for one in _tasks(run) if one.display_name == "executor" and one.start_time == step.start_time)
    return next(own, None)


def _tasks(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []
