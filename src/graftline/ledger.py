"""The ledger: the append-only log of releases, promotions and rollbacks. It decides where aliases point.

Each entry is one object `ledger/<sequence>.json`, stored by put-if-absent, and carries the sha256 of the
bytes of the entry before it. A changed, missing or inserted entry breaks the chain; cutting off its end
does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.store import MissingError, Store

Event = Literal["release", "promote", "rollback"]
START = "0" * 64
"""What the first entry carries as the hash of the one before."""


@dataclass(frozen=True)
class Fact:
    """Something that happened, before it has a place in the ledger."""

    event: Event
    task: str
    version: int
    digest: str
    """The sha256 of the release's manifest."""
    id: str
    """The same for each try of the same act, so that a retry adds nothing."""
    alias: str | None = None


@dataclass(frozen=True)
class Entry:
    """One entry as stored."""

    sequence: int
    """1 for the first."""
    previous: str
    """The sha256 of the bytes of the entry before."""
    event: Event
    task: str
    version: int
    digest: str
    id: str
    alias: str | None
    at: str
    """ISO 8601, UTC."""
    actor: str

    @property
    def data(self) -> bytes:
        return canonical_json(asdict(self))


class Ledger:
    """The verified entries of a store's ledger, and how to add one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.entries = read_ledger(store)

    def current(self, task: str, alias: str) -> Entry | None:
        """Return the entry that decides where `alias` of `task` points."""
        return next((e for e in reversed(self.entries) if (e.task, e.alias) == (task, alias)), None)

    def find(self, identity: str) -> Entry | None:
        """Return the entry with this id."""
        return next((entry for entry in self.entries if entry.id == identity), None)

    def append(self, decide: Callable[[Ledger], Fact | None]) -> Entry | None:
        """Append what `decide` returns for the ledger as it stands; return the entry, None if it wants none.

        When another writer takes the next place, its entry is read and `decide` is asked again: what is
        appended was decided in view of all that precedes it. A fact whose id is in the ledger is not
        appended a second time.
        """
        while True:
            fact = decide(self)
            if fact is None:
                return None
            if known := self.find(fact.id):
                return known
            last = self.entries[-1] if self.entries else None
            entry = Entry(
                sequence=len(self.entries) + 1, previous=sha256_bytes(last.data) if last else START,
                at=utc_now(), actor=_actor(), **asdict(fact),
            )  # fmt: skip
            if self._store.put_if_absent(_key(entry.sequence), entry.data):
                self.entries.append(entry)
                return entry
            self._read_on()

    def _read_on(self) -> None:
        while True:
            try:
                data = self._store.get(_key(len(self.entries) + 1)).data
            except MissingError:
                return
            self.entries.append(_verified(self._store, data, self.entries[-1] if self.entries else None))


def read_ledger(store: Store) -> list[Entry]:
    """Return all entries, oldest first, after checking the chain.

    Raises:
        InputError: an entry is missing, is not one, or does not carry the hash of the one before.
    """
    entries: list[Entry] = []
    for key in store.list("ledger/"):
        expected = _key(len(entries) + 1)
        if key != expected:
            raise _broken(store, expected, f"missing, and {key} is there")
        entries.append(_verified(store, store.get(key).data, entries[-1] if entries else None))
    return entries


def read_entry(store: Store, sequence: int) -> Entry:
    """Return one entry without checking the chain. Raises MissingError, InputError."""
    return _parsed(store, _key(sequence), store.get(_key(sequence)).data)


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, such as 2026-01-31T23:59:59Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _verified(store: Store, data: bytes, last: Entry | None) -> Entry:
    sequence = last.sequence + 1 if last else 1
    entry = _parsed(store, _key(sequence), data)
    previous = sha256_bytes(last.data) if last else START
    if (entry.sequence, entry.previous) != (sequence, previous):
        raise _broken(
            store, _key(sequence), f"follows {entry.previous} as entry {entry.sequence}",
            expected=f"{previous} as entry {sequence}",
        )  # fmt: skip
    return entry


def _parsed(store: Store, key: str, data: bytes) -> Entry:
    try:
        entry = Entry(**json.loads(data))
        same = entry.data == data  # one form only: a hash of the parsed entry is a hash of the stored bytes
    except (ValueError, TypeError) as error:
        raise _broken(store, key, f"not an entry ({error})") from None
    if not same or not isinstance(entry.sequence, int) or not isinstance(entry.version, int):
        raise _broken(store, key, "not an entry in canonical form")
    return entry


def _broken(store: Store, key: str, found: str, *, expected: str = "") -> InputError:
    return InputError(
        f"{store.url}/{key}", found, expected=expected, fix="the ledger was changed: restore it from a backup"
    )


def _key(sequence: int) -> str:
    return f"ledger/{sequence:08d}.json"


def _actor() -> str:
    """Return who acts: $GRAFTLINE_ACTOR (a service account on a cluster), or the user's name."""
    import getpass

    try:
        return os.environ.get("GRAFTLINE_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return f"uid {os.getuid()}"
