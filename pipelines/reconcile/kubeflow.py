"""Kubeflow Pipelines as a backend.

What is made here is found again by name: recurring runs are `<schedule>.<identity>` in one experiment, versions are
named by content, runs by task and key. Recurring runs that are named otherwise belong to people and are left alone.
A recurring run always names its version: without one, Kubeflow takes the newest created, and a revert would change
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from graftline.pipelines.kubeflow_api import KubeflowApi, RefusedError, Version, parameters
from graftline.pipelines.reconcile import claims
from graftline.pipelines.reconcile.desired import Desired, OneRun, Recurring
from graftline.pipelines.reconcile.planning import (
    Action,
    Actual,
    ActualRecurring,
    Create,
    Delete,
    Seen,
    Start,
    Switch,
    Upload,
)
from graftline.pipelines.reconcile.repository import Work
from graftline.store import Store

MARK = "Made by graftline reconcile."
"""Starts the description of each recurring run that is made here."""
ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED")
_NAME = re.compile(r"([a-z0-9-]+)\.([0-9a-f]{12})")


class KubeflowBackend:
    """One experiment of one Kubeflow Pipelines."""

    def __init__(self, api: KubeflowApi, store: Store) -> None:
        """Use an API; intents and claims live in `store`."""
        self._api, self._store = api, store
        self._versions: dict[str, Version] = {}

    def observe(self, desired: Desired, now: datetime) -> Actual:
        wanted: list[OneRun | Recurring] = [*desired.recurring, *desired.runs]
        works = {one.work.version: one.work for one in wanted}
        versions = frozenset(name for name, work in works.items() if self._has_version(work))
        return Actual(
            versions, tuple(self._list_recurring()), {run.key: self._seen(run) for run in desired.runs}
        )

    def apply(self, action: Action, now: datetime) -> None:
        match action:
            case Upload(work):
                self._api.upload(work.pipeline, work.version, work.spec)
            case Create(recurring):
                self._create(recurring)
            case Switch(target, enable):
                self._api.switch_recurring(target.id, enable)
            case Delete(target):
                self._api.delete_recurring(target.id)
            case Start(run, before):
                self._start(run, before, now)

    def _has_version(self, work: Work) -> bool:
        """Look for a version; what was found once is not looked up again."""
        if work.version not in self._versions:
            self._versions |= self._api.versions(work.pipeline)
        return work.version in self._versions

    def _list_recurring(self) -> Iterator[ActualRecurring]:
        """Yield the recurring runs that were made here."""
        for one in self._api.list_recurring():
            named = _NAME.fullmatch(one.display_name or "")
            if named and (one.description or "").startswith(MARK):
                enabled = one.status == "ENABLED" or one.mode == "ENABLE"
                yield ActualRecurring(one.recurring_run_id, named[1], named[2], enabled, one.created_at)

    def _seen(self, run: OneRun) -> Seen:
        """Look for a run: first for who holds its slot or its key, which outlives it, then for the run itself."""
        intent = claims.read_intent(self._store, run.schedule, run.slot_file)
        keys = dict.fromkeys([run.key, *([intent[0].key] if intent else [])])
        held = tuple(holder for key in keys if (holder := claims.holder(self._store, key)))
        if intent and intent[0].held and not held:
            held = (intent[0].held,)
        if held:
            return Seen(intent, held)
        started = tuple(each for key in keys for each in self._find_runs(run.work.task, key))
        return Seen(intent, started, 0 if started else self._active(run.schedule))

    def _find_runs(self, task: str, key: str) -> Iterator[str]:
        from graftline.pipelines.runkey import run_name

        return (run.run_id for run in self._api.find_runs(run_name(task, key), key))

    def _active(self, schedule: str) -> int:
        """Return how many runs of a schedule are at work."""
        named = f'"schedule": "{schedule}"'  # as desired.py writes it; people write what they like
        return sum(
            named in (parameters(run).get("reason") or "")
            for state in ACTIVE
            for run in self._api.runs_in(state)
        )

    def _create(self, recurring: Recurring) -> None:
        self._api.create_recurring(
            recurring.name, self._version(recurring.work), recurring.parameters, cron=recurring.cron,
            description=f"{MARK} Schedule {recurring.schedule}, in UTC: {recurring.cron}",
            max_concurrency=str(recurring.concurrency), no_catchup=not recurring.catch_up,
        )  # fmt: skip

    def _start(self, run: OneRun, before: tuple[claims.Intent, str] | None, now: datetime) -> None:
        self._api.ensure_experiment()  # refused or lost before the intent is noted, it need not be waited for
        if not claims.ask(self._store, run.schedule, run.slot_file, run.key, now, before):
            return  # another reconcile is starting it, or a run of the slot has begun
        description = f"{MARK} Schedule {run.schedule}, {run.slot_file}"
        try:
            self._api.create_run(run.name, self._version(run.work), run.parameters, description=description)
        except RefusedError:
            claims.refused(self._store, run.schedule, run.slot_file)
            raise

    def _version(self, work: Work) -> Version:
        return self._versions[work.version]
