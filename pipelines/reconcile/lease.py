"""One reconcile at a time, as a rule: a lease in the store that expires if its holder dies.

It saves work and keeps two commits from taking turns; it is not what keeps a run from being started twice. A holder
that sleeps past the end of its lease, or a clock that is wrong, costs calls and nothing else (claims.py, planning.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from graftline.canonical import canonical_json
from graftline.errors import GraftlineError
from graftline.store import Store
from graftline.store.documents import stored_json

KEY = "runs/reconcile-lease.json"
SECONDS = 600.0


class LeaseLostError(GraftlineError):
    """The lease ran out while this reconcile was at work; the next one goes on."""


class Lease:
    """Held by one process until `release`, or until it expires."""

    def __init__(self, store: Store, holder: str) -> None:
        """Make a lease that is not held yet; `holder` is a name that no other process has."""
        self._store, self._holder = store, holder
        self._expires: datetime | None = None

    def acquire(self, now: datetime) -> bool:
        """Take the lease if nobody holds it or the holder's time is over."""
        found = stored_json(self._store, KEY)
        held, tag = found or ({"holder": "", "count": 0}, None)
        if held["holder"] and datetime.fromisoformat(held["expires"]) > now:
            return False
        expires = now + timedelta(seconds=SECONDS)
        if not self._store.replace(KEY, self._content(self._holder, expires, held["count"] + 1), tag):
            return False
        self._expires = expires
        return True

    def check(self, now: datetime) -> None:
        """Raise LeaseLostError if the time is over."""
        if self._expires is None or now >= self._expires:
            raise LeaseLostError("reconcile took longer than its lease; run it again")

    def release(self) -> None:
        """Give the lease back, if it is still this holder's."""
        found = stored_json(self._store, KEY)
        if found and self._expires is not None and found[0]["holder"] == self._holder:
            self._store.replace(KEY, self._content("", self._expires, found[0]["count"] + 1), found[1])

    def _content(self, holder: str, expires: datetime, count: int) -> bytes:
        # The count makes each content another one: the store compares content (store/__init__.py).
        return canonical_json({"holder": holder, "expires": expires.isoformat(), "count": count}) + b"\n"
