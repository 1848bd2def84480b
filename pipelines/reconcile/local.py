"""This machine as a backend: DVC runs the checkout. A crontab line or a systemd timer calls reconcile (infra/local).

One reconcile of a checkout works at a time, held by a lock of the operating system that a dead process cannot keep. A
run that was killed, or that found somebody else at work on the task, has no end: the next reconcile takes it up again
under the same key, and DVC goes on where it was.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from graftline import runs
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import EXIT_PREEMPTED, EXIT_REFUSED, BackendError
from graftline.pipelines.reconcile import claims
from graftline.pipelines.reconcile.desired import Desired, OneRun
from graftline.pipelines.reconcile.planning import Action, Actual, Seen, Start
from graftline.store import Store

ROOM_BYTES = 1 << 30
"""A run that fails with less room than this on its disk may have failed for that: it is no end of the run."""
_ENDED: dict[int, runs.State] = {0: "SUCCEEDED", EXIT_REFUSED: "REFUSED"}


class LocalBackend:
    """DVC in one checkout."""

    def __init__(self, store: Store, *, commit: str, run: Callable[[OneRun], int] | None = None) -> None:
        """Run in the checkout.

        Args:
            store: where releases, claims and ends of runs live.
            commit: that is checked out, for the ends.
            run: does a run and returns its exit code; `graftline run` in a process of its own by default.
        """
        self._store, self._commit = store, commit
        self._run = run or (lambda one: _graftline_run(one, store.url))
        place = sha256_bytes(f"{platform.node()}:{ROOT}".encode())[:16]
        self._id = f"local-{place}"  # the same after a crash: the run is taken up again

    def observe(self, desired: Desired, now: datetime) -> Actual:
        versions = frozenset(run.work.version for run in desired.runs)
        return Actual(versions, runs={(run.schedule, run.slot): self._seen(run) for run in desired.runs})

    def apply(self, action: Action, now: datetime) -> None:
        assert isinstance(action, Start), action
        run = action.run
        if not claims.ask(self._store, run.schedule, run.slot_file, run.key, now, action.before):
            return
        if other := claims.hold(self._store, run.key, self._id, schedule=run.schedule, slot=run.slot_file):
            raise BackendError(other)
        work = run.work
        begun = runs.Start(run.key, run.key, work.task, work.version, self._commit, work.data_digest, dict(run.reason))
        runs.begin(self._store, begun)
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
        line = "" if status in _ENDED else f"exit code {status}"
        runs.conclude(self._store, runs.End(begun, _ENDED.get(status, "FAILED"), line=line))

    def _seen(self, run: OneRun) -> Seen:
        """A run has been started for good only when it has ended: what has no end is taken up again."""
        found = claims.read_intent(self._store, run.schedule, run.slot_file)
        keys = dict.fromkeys([run.key, *([found[0].key] if found else [])])
        ended = tuple(key for key in keys if runs.ends(self._store, key))
        if found is None or found[0].held not in ("", self._id):
            return Seen(found, ended or ((found[0].held,) if found else ()))
        settled = replace(found[0], at="", held="")  # nobody else is at work on it
        return Seen((settled, found[1]), ended)


def _graftline_run(run: OneRun, store_url: str) -> int:
    """Run the task as `graftline run` does; its output goes where ours goes."""
    command = [sys.executable, "-m", "graftline.cli", "run", run.work.task, "--store", store_url]
    environment = os.environ | {"GRAFTLINE_RUN": run.key}
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def lock_path() -> Path:
    """Return the file whose lock one reconcile of this checkout holds."""
    return ROOT / "outputs/reconcile"
