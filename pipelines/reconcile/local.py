"""This machine as a backend: DVC runs the checkout. A crontab line or a systemd timer calls reconcile (infra/local).

Nothing here recurs by itself, so reconcile starts the slots that are due. One reconcile of a checkout works at a
time, held by a lock of the operating system that a dead process cannot keep. A run that was killed, or that found
somebody else at work on the task, has no record: the next reconcile takes it up again under the same key, and DVC
goes on where it was.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import EXIT_PREEMPTED, EXIT_REFUSED
from graftline.pipelines.reconcile import claims
from graftline.pipelines.reconcile.desired import Desired, OneRun
from graftline.pipelines.reconcile.planning import Action, Actual, Seen, Start
from graftline.pipelines.reconcile.reconcile import BackendError
from graftline.pipelines.reconcile.schedules import Schedule
from graftline.store import Store
from graftline.store.documents import stored_json

ROOM_BYTES = 1 << 30
"""A run that fails with less room than this on its disk may have failed for that: it is no end of the run."""
_ENDED = {0: "SUCCEEDED", EXIT_REFUSED: "REFUSED"}


class LocalBackend:
    """DVC in one checkout."""

    def __init__(self, store: Store, *, commit: str, run: Callable[[OneRun], int] | None = None) -> None:
        """Run in the checkout.

        Args:
            store: where releases, claims and records of runs live.
            commit: that is checked out, for the records.
            run: does a run and returns its exit code; `graftline run` in a process of its own by default.
        """
        self._store, self._commit = store, commit
        self._run = run or (lambda one: _graftline_run(one, store.url))
        place = sha256_bytes(f"{platform.node()}:{ROOT}".encode())[:16]
        self._id = f"local-{place}"  # the same after a crash: the run is taken up again

    def observe(self, desired: Desired, now: datetime) -> Actual:
        versions = frozenset(run.work.version for run in desired.runs)
        return Actual(versions, (), {run.key: self._seen(run) for run in desired.runs})

    def apply(self, action: Action, now: datetime) -> None:
        assert isinstance(action, Start), action
        run = action.run
        if not claims.ask(self._store, run.schedule, run.slot_file, run.key, now, action.before):
            return
        if other := claims.hold(self._store, run.key, self._id, schedule=run.schedule, slot=run.slot_file):
            raise BackendError(other)
        status = self._run(run)
        if status == EXIT_PREEMPTED:
            raise BackendError(f"it could not go on (exit code {status}); the next reconcile tries again")
        if status < 0 or status > 128:  # stopped by a signal, not by its own doing
            raise BackendError(f"stopped with exit code {status}; the next reconcile goes on from there")
        if status not in _ENDED and (free := shutil.disk_usage(ROOT).free) < ROOM_BYTES:
            raise BackendError(
                f"it failed with exit code {status}, and {ROOT} has {free / 1e6:,.0f} MB left; make room, "
                "the next reconcile tries again"
            )
        claims.record_end(self._store, run.key, self._record(run, status))

    def _seen(self, run: OneRun) -> Seen:
        """A run has been started for good only when it has ended: what has no record is taken up again."""
        found = claims.read_intent(self._store, run.schedule, run.slot_file)
        keys = dict.fromkeys([run.key, *([found[0].key] if found else [])])
        ended = tuple(key for key in keys if claims.has_record(self._store, key))
        if found is None or found[0].held not in ("", self._id):
            return Seen(found, ended or ((found[0].held,) if found else ()))
        settled = replace(found[0], at="", held="")  # nobody else is at work on it
        return Seen((settled, found[1]), ended)

    def _record(self, run: OneRun, status: int) -> dict[str, Any]:
        return {
            "task": run.work.task, "run_key": run.key, "state": _ENDED.get(status, "FAILED"), "exit_code": status,
            "message": "", "run_id": self._id, "version": run.work.version, "revision": self._commit,
            "data_digest": run.work.data_digest, "reason": dict(run.reason),
        }  # fmt: skip


def _graftline_run(run: OneRun, store_url: str) -> int:
    """Run the task as `graftline run` does; its output goes where ours goes."""
    command = [sys.executable, "-m", "graftline.cli", "run", run.work.task, "--store", store_url]
    environment = os.environ | {"GRAFTLINE_RUN": run.key}
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def slots_since(store: Store, schedules: Mapping[str, Schedule], now: datetime) -> dict[str, datetime]:
    """Return the moment from which each schedule's slots count.

    A schedule that is new here, has other times or was paused has none yet: it counts from now on, once `note_slots`
    has noted so.
    """
    found = {}
    for name, schedule in schedules.items():
        noted = stored_json(store, _key(name))
        if noted is not None and noted[0]["times"] == _times(schedule):
            found[name] = datetime.fromisoformat(noted[0]["since"])
        else:
            found[name] = now
    return found


def note_slots(store: Store, schedules: Mapping[str, Schedule], since: Mapping[str, datetime]) -> None:
    """Note from when the slots of each schedule count at the next reconcile."""
    for name, schedule in schedules.items():
        content = {"times": _times(schedule), "since": since[name].isoformat()}
        before, tag = stored_json(store, _key(name)) or (None, None)
        if content != before:
            store.replace(_key(name), canonical_json(content) + b"\n", tag)


def _times(schedule: Schedule) -> str:
    return f"{schedule.cron} {schedule.zone}{' paused' if schedule.paused else ''}"


def _key(name: str) -> str:
    return f"runs/schedules/{name}.json"


def lock_path() -> Path:
    """Return the file whose lock one reconcile of this checkout holds."""
    return ROOT / "outputs/reconcile"
