"""A heartbeat in the store: work that was left alone by whoever started it ends by itself, with a checkpoint.

A cluster may end the process that follows a job before it has deleted the job. So that one writes a new count now and
then, and the processes of the job listen: when it has been silent for long, they send themselves SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graftline.errors import GraftlineError
from graftline.store import MissingError, Store, check_key
from graftline.store.documents import json_bytes, stored_json

SILENT_SECONDS = 300.0
"""How long it may be silent: whoever follows a job and was lost with its node is back within this time."""
_BEATS = 10
"""In this time."""


class Heartbeat:
    """The heartbeat under one key. GRAFTLINE_SILENT_SECONDS replaces `SILENT_SECONDS`."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, check_key(key)
        self.silent = float(os.environ.get("GRAFTLINE_SILENT_SECONDS") or SILENT_SECONDS)
        self.pause = self.silent / _BEATS

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat at once, and within until it is left. A store that does not answer is left to whoever listens."""
        over = threading.Event()
        self._beat()
        threading.Thread(target=self._keep, args=(over,), name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def listen(self, name: str) -> None:
        """Send this process SIGTERM when the heartbeat was silent for too long, by this machine's clock; never return
        before. `name` begins the line that says why.

        A store that cannot be read is no silence: its outage keeps the other side from beating too, so the time begins
        anew when it answers again. It is taken for the end after twice the time: nothing that is made here gets out.
        """
        seen, changed = "", time.monotonic()
        read = changed
        while True:
            time.sleep(self.pause)
            try:
                beat, now = self._last(), time.monotonic()
            except (GraftlineError, OSError):
                if time.monotonic() - read <= 2 * self.silent:
                    continue
                why = f"the store has not answered for {2 * self.silent:g} s"
                break
            if beat != seen or now - read > self.silent / 2:
                seen, changed = beat, now
            read = now
            if now - changed > self.silent:
                why = f"nobody has followed this job for {self.silent:g} s: its run was ended, or its launcher is lost"
                break
        print(f"{name}: {why}; a checkpoint, then the end", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    def _keep(self, over: threading.Event) -> None:
        while not over.wait(self.pause):
            self._beat()

    def _beat(self) -> None:
        try:
            found = stored_json(self._store, self._key)
            count, tag = (found[0]["count"], found[1]) if found else (0, None)
            self._store.replace(self._key, json_bytes({"count": count + 1}), tag)  # False: another one beat
        except (GraftlineError, OSError) as error:
            print(f"heartbeat: {error}", file=sys.stderr, flush=True)

    def _last(self) -> str:
        """Return what changes with each beat; "" if there was none, or if the run has ended and was swept."""
        try:
            return self._store.get(self._key).tag
        except MissingError:
            return ""
