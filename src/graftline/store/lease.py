"""One at a time, as a rule: a lease in the store that its holder renews, and that is free 30 s after a holder dies.

It saves work and keeps two commits from taking turns; it is not what keeps a run from being started twice. A holder
that sleeps past the end of its lease, or a clock that is wrong, costs calls and nothing else (claims.py, planning.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from graftline.errors import GraftlineError
from graftline.store import Store
from graftline.store.documents import json_bytes, stored_json

RECONCILE = "runs/reconcile-lease.json"
"""Of who changes something."""
SERVE = "runs/serve-lease.json"
"""Of the process that wakes up for slots and commits."""
SECONDS, RENEWED = 30.0, 10.0


class LeaseLostError(GraftlineError):
    """The lease ran out while its holder was at work; the next one goes on."""


class Lease:
    """Held by one process until `release`, or until it expires."""

    def __init__(self, store: Store, key: str, holder: str) -> None:
        """Make a lease that is not held yet; `holder` is a name that no other process has."""
        self._store, self._key, self._holder = store, key, holder
        self._expires: datetime | None = None

    def acquire(self, now: datetime) -> bool:
        """Take the lease, or renew it; False if somebody else holds it whose time is not over."""
        found = stored_json(self._store, self._key)
        held, tag = found or ({"holder": "", "count": 0}, None)
        if held["holder"] not in ("", self._holder) and datetime.fromisoformat(held["expires"]) > now:
            return False
        expires = now + timedelta(seconds=SECONDS)
        if not self._store.replace(self._key, self._content(self._holder, expires, held["count"] + 1), tag):
            return False
        self._expires = expires
        return True

    def check(self, now: datetime) -> None:
        """Raise LeaseLostError if the time is over."""
        if self._expires is None or now >= self._expires:
            raise LeaseLostError("the lease ran out; run it again")

    def release(self) -> None:
        """Give the lease back, if it is still this holder's."""
        found = stored_json(self._store, self._key)
        if found and self._expires is not None and found[0]["holder"] == self._holder:
            content = self._content("", self._expires, found[0]["count"] + 1)
            self._store.replace(self._key, content, found[1])

    @contextmanager
    def renewed(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[None]:
        """Renew a lease that is held every `RENEWED` seconds, and give it back at the end."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(RENEWED):
                try:
                    self.acquire(clock())
                except GraftlineError:  # the store may answer next time; `check` says when it is too late
                    continue

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.release()

    def _content(self, holder: str, expires: datetime, count: int) -> bytes:
        # The count makes each content another one: the store compares content (store/__init__.py).
        return json_bytes({"holder": holder, "expires": expires.isoformat(), "count": count})
