"""Checkpoints in the store: another machine, with an empty disk, goes on from them, in this run or in a later one.

    checkpoints/<component>/<identity>/<run>/<step>...    a bundle: state, manifest, metrics so far

<identity> is what is trained: parameters, inputs, code. Every run writes below its own name, so that two at once share
none, and goes on from the newest of any run: a submit of the same work starts where a cancelled run stopped.

The engine switches them on: GRAFTLINE_RUN names the run, GRAFTLINE_CHECKPOINTS the store. They are no parameter and
never change a result. A checkpoint is on the local disk first; a thread uploads it while training goes on, so the disk
of a machine that vanishes costs the steps since the newest one that was uploaded. Each run keeps its last two.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from graftline import runs
from graftline.durable import output_directory
from graftline.errors import GraftlineError, InputError
from graftline.store import MissingError, Store, check_key
from graftline.store.bundles import (
    DamagedError,
    Source,
    StoppedError,
    delete_bundle,
    get_bundle,
    list_bundles,
    put_bundle,
)
from graftline.store.opening import open_store

METRICS = "metrics.jsonl"
KEPT = 2
GIVEN_UP = timedelta(days=14)
"""How long after its end the checkpoints of a run that was given up wait for another run of the same work."""
_END_SECONDS = 60.0
"""How long the end of a run waits for an upload under way to stop."""


@dataclass(frozen=True)
class _Upload:
    step: int
    folder: Path
    metrics_bytes: int


class RemoteCheckpoints:
    """The checkpoints of one training in the store. A store that fails is said once, and tried again with the next.

    `identity` is that of the local checkpoints, `run` the one that trains, `metrics` the file of which every checkpoint
    needs the lines before it.
    """

    def __init__(self, store: Store, component: str, identity: str, run: str, metrics: Path) -> None:
        self._store, self._run, self._metrics = store, _run_name(run), metrics
        self._work_key = f"checkpoints/{component}/{identity[:16]}"
        self._prefix = check_key(f"{self._work_key}/{run}")
        self._changed = threading.Condition()
        self._next: _Upload | None = None
        self._current: _Upload | None = None
        self._thread: threading.Thread | None = None
        self._closed = self._failing = self._untidy = False
        self.newest: int | None = None
        """Steps of the newest checkpoint known to be whole in the store."""

    def offer(self, step: int, folder: Path, metrics_bytes: int) -> None:
        """Have the checkpoint in `folder` uploaded; one that still waits is given up for it. Never blocks."""
        with self._changed:
            self._next = _Upload(step, folder, metrics_bytes)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def needs(self, folder: Path) -> bool:
        """Return whether `folder` waits to be uploaded, or is."""
        with self._changed:
            return any(upload and upload.folder == folder for upload in (self._next, self._current))

    def settle(self, until: float) -> None:
        """Wait until everything offered is uploaded, or has failed; at most until the monotonic time `until`."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._next or self._current), max(0.0, until - time.monotonic()))

    def found(self) -> list[tuple[int, str]]:
        """Return step and run of the whole checkpoints of this work, newest first, of equal ones this run's own first;
        none, and say so, if the store does not answer.

        Raises:
            InputError: this user may not use the store, or there is none of that name.
        """
        try:
            keys = [key.split("/")[3:] for key in _keys(self._store, self._work_key) if key.endswith(".json")]
        except InputError:
            raise
        except GraftlineError as error:
            _say(f"no checkpoint is read from the store: {error}")
            return []
        whole = [(int(name.removesuffix(".json")), run) for run, name in keys]
        return sorted(whole, key=lambda one: (one[0], one[1] == self._run), reverse=True)

    def fetch(self, step: int, run: str, folder: Path) -> bool:
        """Make `folder` from a checkpoint; return False, and say why, if it is not whole or cannot be read.

        A damaged one of this run is removed: it will come by that step again.

        Raises:
            InputError: this user may not read the store.
        """
        name = f"{step:08d}"
        try:
            with output_directory(folder) as aside:
                get_bundle(self._store, f"{self._work_key}/{run}", name, aside)
        except (DamagedError, MissingError) as error:
            _say(f"checkpoint {name} in the store is damaged ({error}); it is not used")
            self.drop(step, run)
            return False
        except InputError:
            raise
        except GraftlineError as error:
            _say(f"checkpoint {name} is not read from the store: {error}")
            return False
        self.newest = step
        return True

    def drop(self, step: int, run: str) -> None:
        """Remove a checkpoint from the store, if it is this run's: another one removes its own."""
        if run != self._run:
            return
        try:
            delete_bundle(self._store, self._prefix, f"{step:08d}")
        except GraftlineError as error:
            _say(f"a checkpoint cannot be removed from the store: {error}")

    def restore_metrics(self, folder: Path) -> None:
        """Put the metrics that came with a fetched checkpoint where the run continues them."""
        if (folder / METRICS).exists():
            (folder / METRICS).replace(self._metrics)

    def forget(self) -> None:
        """Stop uploading and remove the checkpoints of this work: its output is whole.

        With GRAFTLINE_KEEP_CHECKPOINTS they stay: where the output has still to leave the machine, the engine removes
        them when it has arrived.
        """
        with self._changed:
            self._closed, self._next = True, None
            self._changed.notify_all()
        if self._thread:
            self._thread.join(_END_SECONDS)
        if os.environ.get("GRAFTLINE_KEEP_CHECKPOINTS"):
            return
        try:
            forget(self._store, self._run, self._work_key)
        except GraftlineError as error:
            _say(f"checkpoints stay in the store: {error}")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next or self._closed)
                if self._closed:
                    return
                self._current, self._next = self._next, None
                upload = self._current
            assert upload
            try:
                self._upload(upload)
            except StoppedError:
                pass
            except Exception as error:  # noqa: BLE001  (whatever it is: it must not end the training)
                self._failed(upload, error)
            with self._changed:
                self._current = None
                self._changed.notify_all()

    def _upload(self, upload: _Upload) -> None:
        """Store one checkpoint, then remove those before the last two."""
        files = {path.name: Source(path) for path in upload.folder.iterdir() if path.name != METRICS}
        files[METRICS] = Source(self._metrics, upload.metrics_bytes)
        put_bundle(self._store, self._prefix, f"{upload.step:08d}", files, stopped=lambda: self._closed)
        self.newest = upload.step
        if self._failing:
            self._failing = False
            _say(f"the store takes checkpoints again: it has that of step {upload.step}")
        try:
            self._prune()
            self._untidy = False
        except Exception as error:  # noqa: BLE001  (the checkpoint is there; the next one removes the older)
            if not self._untidy:
                _say(f"the store has the checkpoint of step {upload.step}; older ones stay there: {error}")
            self._untidy = True

    def _prune(self) -> None:
        """Remove what is older than the last two, parts of uploads that were cut short included.

        What is newer and not whole may be under way: the machine that ran before may not have ended yet.
        """
        oldest = min(list_bundles(self._store, self._prefix)[-KEPT:], default="")
        keys = [key.removeprefix(f"{self._prefix}/") for key in self._store.list(f"{self._prefix}/")]
        for key in sorted(keys, key=lambda key: not key.endswith(".json")):
            if key[:8] < oldest:
                self._store.delete(f"{self._prefix}/{key}")

    def _failed(self, upload: _Upload, error: Exception) -> None:
        if not self._failing:
            has = "none" if self.newest is None else f"that of step {self.newest}"
            _say(
                f"the checkpoint of step {upload.step} is not in the store, which has {has}: {error}; "
                "training goes on, and the next one is tried"
            )
        self._failing = True


def remote_checkpoints(component: str, identity: str, metrics: Path) -> RemoteCheckpoints | None:
    """Return the checkpoints in the store that the engine has switched on, or None.

    Raises:
        InputError: the engine names a store and no run, or what it names cannot be used.
    """
    url, run = os.environ.get("GRAFTLINE_CHECKPOINTS"), os.environ.get("GRAFTLINE_RUN")
    if not url:
        return None
    if not run:
        raise InputError(
            "GRAFTLINE_RUN",
            "not set, though GRAFTLINE_CHECKPOINTS is",
            expected="what names the run",
            fix="set both, or neither",
        )
    return RemoteCheckpoints(open_store(url), component, identity, run, metrics)


def forget(store: Store, run: str, below: str) -> None:
    """Remove a run's checkpoints below a key (of one work, or of all of a component), its output being whole, and those
    of the same work by runs that have ended. Those of a run that is still open stay."""
    keys = _keys(store, below)
    works = {below, *(_work(key) for key in keys if _run_of(key) == run)}
    done = {other: other == run or runs.begun(store, other) is None for other in map(_run_of, keys)}
    _delete(store, (key for key in keys if _work(key) in works and done[_run_of(key)]))


def sweep_checkpoints(store: Store, now: datetime) -> list[str]:
    """Remove the checkpoints of runs that ended longer ago than `GIVEN_UP`; return those runs.

    A run that is open keeps its own, and so does one of whose end the store knows no time: the bucket's rule for old
    objects is for those.
    """
    keys = _keys(store, "checkpoints")
    old = {run for run in map(_run_of, keys) if _gave_up(store, run, now)}
    _delete(store, (key for key in keys if _run_of(key) in old))
    return sorted(old)


def _gave_up(store: Store, run: str, now: datetime) -> bool:
    ended = next((end.ended for end in reversed(runs.ends(store, run))), "")
    return bool(ended) and now - datetime.fromisoformat(ended) > GIVEN_UP and runs.begun(store, run) is None


def _keys(store: Store, below: str) -> list[str]:
    return [key for key in store.list(f"{below}/") if key.count("/") == 4]


def _delete(store: Store, keys: Iterable[str]) -> None:
    for key in sorted(keys, key=lambda key: not key.endswith(".json")):  # what is left of a bundle is none
        store.delete(key)


def _work(key: str) -> str:
    return "/".join(key.split("/")[:3])


def _run_of(key: str) -> str:
    return key.split("/")[3]


def _run_name(run: str) -> str:
    if "/" in run:
        raise InputError("GRAFTLINE_RUN", repr(run), expected="a name without '/'")
    return run


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
