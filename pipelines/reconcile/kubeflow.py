"""Kubeflow Pipelines as a backend.

What is made here is found again by name: versions are named by content, runs by task and key. A run names its version:
without one, Kubeflow takes the newest created, and a revert would change nothing.

A run that has a workflow no more is a ghost (cluster.py): it counts as nothing, whatever the API calls it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from graftline import ending, runs
from graftline.errors import BackendError, GraftlineError
from graftline.kubeflow_api import DeniedError, KubeflowApi, NotFoundError, RefusedError, Version, parameters
from graftline.pipelines.reconcile import claims
from graftline.pipelines.reconcile.desired import Desired, OneRun
from graftline.pipelines.reconcile.planning import Action, Actual, Close, Seen, Start, Upload
from graftline.pipelines.runkey import Work, run_name
from graftline.store import Store
from graftline.store.documents import json_bytes, stored_json

ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED")
ENDS_ITSELF = timedelta(minutes=2)
"""How long after a run's end its own last step may still be about to record it."""
APPLIED_WITHIN = timedelta(minutes=10)
"""How long a version that the commit holds as a manifest may take to be applied: Argo CD needs 1 to 3 minutes."""
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class KubeflowBackend:
    """One experiment of one Kubeflow Pipelines."""

    def __init__(
        self,
        api: KubeflowApi,
        store: Store,
        *,
        ghosts: Callable[[Collection[str]], set[str]],
        manifests: Collection[str] = (),
        deadline: timedelta = timedelta.max,
    ) -> None:
        """Use an API.

        Args:
            api: of Kubeflow Pipelines.
            store: where intents and claims live.
            ghosts: returns those of some unfinished runs, by id, that have no workflow.
            manifests: names of the versions that the commit holds as manifests: git's to apply, not ours to upload.
            deadline: after which a run is stopped.
        """
        self._api, self._store = api, store
        self._ghosts, self._manifests, self._deadline = ghosts, manifests, deadline
        self._versions: dict[str, Version] = {}
        self._unfinished: list[Any] | None = None

    def observe(self, desired: Desired, now: datetime) -> Actual:
        self._unfinished = None
        seen = {(run.schedule, run.slot): self._seen(run) for run in desired.runs}
        works = {run.work.version: run.work for run in desired.runs if not seen[run.schedule, run.slot].started}
        missing = [name for name, work in works.items() if not self._has_version(work)]
        awaited = {name for name in missing if name in self._manifests and self._may_come(name, now)}
        return Actual(works.keys() - missing, awaited, seen, tuple(self._ended(now)))

    def apply(self, action: Action, now: datetime) -> None:
        match action:
            case Upload(work):
                self._api.upload(work.pipeline, work.version, work.spec)
            case Close(begun, engine):
                try:
                    ending.close(self._store, begun, engine)
                except GraftlineError as error:  # one run that cannot be closed holds up no other's start
                    raise BackendError(str(error)) from None
            case Start(run, before):
                self._start(run, before, now)

    def _has_version(self, work: Work) -> bool:
        """Look for a version; what was found once is not looked up again."""
        if work.version not in self._versions:
            self._versions |= self._api.versions(work.pipeline)
        return work.version in self._versions

    def _may_come(self, version: str, now: datetime) -> bool:
        """Return whether a version may still be applied, counted from when it was first missed."""
        key = f"runs/awaited/{version}.json"
        self._store.put_if_absent(key, json_bytes({"since": now.isoformat()}))
        found = stored_json(self._store, key)
        return found is None or now - datetime.fromisoformat(found[0]["since"]) < APPLIED_WITHIN

    def _seen(self, run: OneRun) -> Seen:
        """Look for a run: first for who holds its slot or its key, which outlives it, then for the run itself."""
        intent = claims.read_intent(self._store, run.schedule, run.slot_file)
        keys = dict.fromkeys([run.key, *([intent[0].key] if intent else [])])
        held = tuple(holder for key in keys if (holder := claims.holder(self._store, key)))
        if intent and intent[0].held and not held:
            held = (intent[0].held,)
        if held:
            return Seen(intent, held)
        started = tuple(one.run_id for key in keys for one in self._find_runs(run.work.task, key))
        return Seen(intent, started, 0 if started else self._active(run.schedule))

    def _find_runs(self, task: str, key: str) -> Iterable[Any]:
        return self._real(self._api.find_runs(run_name(task, key), key))

    def _active(self, schedule: str) -> int:
        """Return how many runs of a schedule are at work."""
        if self._unfinished is None:
            self._unfinished = self._real(run for state in ACTIVE for run in self._api.runs_in(state))
        named = f'"schedule": "{schedule}"'  # as desired.py writes it; people write what they like
        return sum(named in (parameters(run).get("reason") or "") for run in self._unfinished)

    def _real(self, found: Iterable[Any]) -> list[Any]:
        """Return the runs that are no ghosts."""
        listed = list(found)
        ghosts = self._ghosts({run.run_id for run in listed if run.state in ACTIVE})
        return [run for run in listed if run.run_id not in ghosts]

    def _ended(self, now: datetime) -> Iterable[tuple[runs.Start, runs.State]]:
        """Yield the runs that have begun, have no end in the store, and are over."""
        unfinished: list[runs.Start] = []
        for begun in runs.open_runs(self._store, lambda error: print(f"graftline: {error}", file=sys.stderr)):
            if not _ID.fullmatch(begun.run):
                continue  # another engine's
            try:
                run = self._api.get_run(begun.run)
            except NotFoundError:
                if self._api.find_experiment():  # else another Kubeflow than the one that has our runs
                    yield begun, "LOST"  # a person deleted it
                continue
            if (run.state or "PENDING") in ACTIVE:
                unfinished.append(begun)
            elif run.finished_at is None or now - run.finished_at >= ENDS_ITSELF:
                yield begun, ending.engine_state(run, self._deadline)
        ghosts = self._ghosts({begun.run for begun in unfinished})
        yield from ((begun, "LOST") for begun in unfinished if begun.run in ghosts)

    def _start(self, run: OneRun, before: tuple[claims.Intent, str] | None, now: datetime) -> None:
        self._api.ensure_experiment()  # refused or lost before the intent is noted, it need not be waited for
        if not claims.ask(self._store, run.schedule, run.slot_file, run.key, now, before):
            return  # another reconcile is starting it, or a run of the slot has begun
        description = f"Made by graftline reconcile. Schedule {run.schedule}, {run.slot_file}"
        try:
            self._api.create_run(run.name, self._versions[run.work.version], run.parameters, description=description)
        except (RefusedError, DeniedError):
            claims.refused(self._store, run.schedule, run.slot_file)
            raise
