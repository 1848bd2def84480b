"""Read the ledger, and add to it: many writers, one place each."""

from __future__ import annotations

import base64
import getpass
import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from graftline.errors import InputError, RefusalError
from graftline.ledger.cache import Cache
from graftline.ledger.chain import Chain
from graftline.ledger.checkpoint import check_seen
from graftline.ledger.entries import ENTRY_KEY, Entry, Fact, broken, entry_key, parse_entry
from graftline.ledger.merkle import Tree
from graftline.ledger.trust import Action, Trust, key_fact
from graftline.signing.keyring import load_keyring
from graftline.store import MissingError, Store
from graftline.times import utc_now

if TYPE_CHECKING:
    from graftline.signing.keys import PublicKey, Signer

READERS = 8
"""Requests at once to a store that is not a folder: each waits for the network, not for this machine."""
_WIDEST = 256
"""The most entries that are asked for before the first of them is looked at."""


class Ledger:
    """The verified entries of a store's ledger, and how to add one.

    What this machine has verified before comes from its cache, if the store still has the last of it.

    Raises:
        BrokenLedgerError: an entry is missing or is not what its writer signed, or the store's ledger is not the
            one that this machine has seen.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._signer: Signer | None = None
        self._cache = Cache(store)
        self._chain = self._cache.read()
        if self._chain.entries:
            self._confirm()
        if self._chain.entries:
            self._read_on()
        else:
            self._chain = read_chain(store)
            self._cache.extend(self._chain)
        check_seen(self._chain, store.identity)

    @property
    def entries(self) -> list[Entry]:
        """All, oldest first."""
        return self._chain.entries

    @property
    def tree(self) -> Tree:
        """The Merkle tree over the bytes of the entries."""
        return self._chain.tree

    @property
    def trust(self) -> Trust:
        """Which keys the ledger trusts, and where."""
        return self._chain.trust

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def aliases(self) -> dict[tuple[str, str], Entry]:
        """The entry that decides where each alias points, by task and alias."""
        return self._chain.aliases

    def at(self, sequence: int) -> Entry | None:
        """Return the entry of this number; None if there is none."""
        return self.entries[sequence - 1] if 1 <= sequence <= len(self.entries) else None

    def released(self, task: str, version: int) -> Entry | None:
        """Return the entry by which a version was released; None if it was not."""
        return self._chain.released(task, version)

    def current(self, task: str, alias: str) -> Entry | None:
        """Return the entry that decides where `alias` of `task` points."""
        return self._chain.current(task, alias)

    def find(self, identity: str) -> Entry | None:
        """Return the entry with this id."""
        return self._chain.find(identity)

    def append(self, decide: Callable[[Ledger], Fact | None], *, signer: Signer | None = None) -> Entry | None:
        """Append what `decide` returns for the ledger as it stands; return the entry, None if it wants none.

        When another writer takes the next place, its entry is read and `decide` is asked again: what is
        appended was decided in view of all that precedes it. A fact whose id is in the ledger is not
        appended a second time. The first entry of all is the signer's key.

        Args:
            signer: who signs; the keyring's if left out.

        Raises:
            RefusalError: the ledger does not trust the signer's key.
        """
        for lost in itertools.count(1):
            fact = decide(self)
            if fact is None:
                return None
            if known := self.find(fact.id):
                return known
            signer = signer or self._own_signer()
            first = not self.entries
            if first:
                fact = key_fact("trust", signer.public, uuid.uuid4().hex)
            else:
                self.check_signer(signer.keyid)
            entry = self._sealed(fact, signer)
            self._chain.check(parse_entry(self.url, entry_key(entry.sequence), entry.data))  # as readers will
            started = time.monotonic()
            if self._store.put_if_absent(entry_key(entry.sequence), entry.data):
                self._chain.include(entry)
                self._cache.extend(self._chain)
                if not first:
                    return entry
            else:
                _pause(lost, time.monotonic() - started)
                self._read_on(1)
        raise AssertionError("unreachable")

    def check_signer(self, keyid: str) -> None:
        """Raise RefusalError unless this key may sign the next entry."""
        state = self.trust.state(keyid)
        if not self.entries or state == "valid":
            return
        people = [f"{actor or 'the owner'} (key {k[:12]})" for k, actor in self.trust.valid().items()]
        shown = ", ".join(people[:3]) + (f" or {len(people) - 3} others" if len(people) > 3 else "")
        raise RefusalError(
            f"{self.url}: its ledger does not take entries by key {keyid} of this machine (the key is {state}); "
            f"{_plain(shown)} must run `graftline keys trust` with this key's public half"
        )

    def _own_signer(self) -> Signer:
        self._signer = self._signer or load_keyring().signer()
        return self._signer

    def _sealed(self, fact: Fact, signer: Signer) -> Entry:
        """Return the fact as the next entry, signed."""
        entry = Entry(
            sequence=len(self.entries) + 1,
            previous=self._chain.previous,
            root=self.tree.root().hex(),
            at=utc_now(),
            actor=_actor(),
            key=signer.keyid,
            signature="",
            **asdict(fact),
        )
        return replace(entry, signature=base64.b64encode(signer.sign(entry.signed)).decode())

    def _confirm(self) -> None:
        """Raise BrokenLedgerError unless the store has the last entry that was verified before.

        It carries the root of all before it. A ledger without any entry is one that was cut off at its start.
        """
        last = self.entries[-1]
        found = _get(self._store, last.sequence)
        if found != last.data:
            raise broken(
                self._store.url,
                entry_key(last.sequence),
                "missing" if found is None else "other than what this machine has verified",
                expected=f"the entry of {last.at}",
                fix=f"the ledger was changed: restore it; if it is meant to be another, delete {self._cache.path}",
            )

    def _read_on(self, width: int = 2) -> None:
        """Include the entries that others have added, of which the first `width` are asked for at once."""
        while True:
            start = len(self.entries) + 1
            found = _get_all(self._store, range(start, start + width))
            whole = found.index(None) if None in found else width
            for data in found[:whole]:
                self._chain.add(data or b"")
            if whole == width > 1:
                width = min(2 * width, _WIDEST)
            elif whole:
                continue
            elif not any(found):
                break
            elif _get(self._store, start) is None:  # not one that came between the two reads
                after = next(n for n in range(width) if found[n] is not None)
                raise broken(self._store.url, entry_key(start), f"missing, and {entry_key(start + after)} is there")
        self._cache.extend(self._chain)


def stored_entries(
    store: Store, progress: Callable[[int, int], None] = lambda done, of: None
) -> Iterator[tuple[str, bytes | None]]:
    """Yield key and bytes of each entry that is listed or is before such a one, unverified; None if it is not there.

    Args:
        progress: called now and then with how many entries of how many are read.
    """
    numbers = {key: int(match[1]) if (match := ENTRY_KEY.fullmatch(key)) else 0 for key in store.list("ledger/")}
    yield from ((key, b"") for key, number in numbers.items() if number == 0)
    listed = {number for number in numbers.values() if number}
    # A listing made while others append may leave out the one before. A stray 99999999 is not read up to.
    wanted = sorted(listed | {number - 1 for number in listed if number > 1})
    for done, (sequence, data) in enumerate(zip(wanted, _all(store, wanted), strict=True), start=1):
        yield entry_key(sequence), data
        if done % 256 == 0 or done == len(wanted):
            progress(done, len(wanted))


def read_chain(store: Store) -> Chain:
    """Return the whole ledger, every entry read from the store and verified; nothing comes from the cache.

    Raises:
        BrokenLedgerError: an entry is missing, or is not what its writer signed; or another key is among them.
    """
    chain = Chain(store.url)
    count = _count(store)
    for sequence, data in enumerate(_all(store, range(1, count + 1)), start=1):
        if data is None:
            raise broken(store.url, entry_key(sequence), "missing, and it was listed")
        chain.add(data)
    return chain


def _count(store: Store) -> int:
    """Return how many entries there are. Raises BrokenLedgerError if one of them is missing, or another key is there.

    A listing made while others append may have a later entry and not the one before: it is asked for by itself.
    """
    count = 0
    for key in store.list("ledger/"):
        while entry_key(count + 1) < key and _get(store, count + 1) is not None:
            count += 1
        if key != entry_key(count + 1):
            raise broken(store.url, entry_key(count + 1), f"missing, and {key} is there")
        count += 1
    return count


def key_event(store: Store, action: Action, public_key: PublicKey, *, signer: Signer | None = None) -> Entry | None:
    """Enter that a key is trusted, retired or revoked from here on; None if it is already so.

    Args:
        signer: who signs; the keyring's if left out. To hand over to a new key, the old one signs its trust.

    Raises:
        InputError: the key is unknown, was revoked, or is the last valid one.
        RefusalError: the ledger does not trust the signer's key.
    """
    becomes = {"trust": "valid", "retire": "retired", "revoke": "revoked"}[action]
    identity = uuid.uuid4().hex

    def decide(ledger: Ledger) -> Fact | None:
        if ledger.trust.state(public_key.keyid) == becomes:
            return None
        try:
            ledger.trust.check_change(action, public_key.keyid)
        except ValueError as error:
            raise InputError(f"{store.url}: {action}", str(error)) from None
        return key_fact(action, public_key, identity)

    return Ledger(store).append(decide, signer=signer)


def _pause(lost: int, seconds: float) -> None:
    """Wait a random while before trying again, longer with each place lost: the others need the time of an upload.

    Args:
        seconds: how long the upload took that lost.
    """
    time.sleep(random.uniform(0, min(2.0, seconds * 2 ** min(lost, 5))))  # noqa: S311  (spreads writers, no secret)


def _all(store: Store, sequences: Sequence[int]) -> Iterator[bytes | None]:
    for start in range(0, len(sequences), _WIDEST):
        yield from _get_all(store, sequences[start : start + _WIDEST])


def _get_all(store: Store, sequences: Sequence[int]) -> list[bytes | None]:
    """Return the bytes of entries; None for each that is not there."""
    if store.local_path("ledger") is not None:
        return [_get(store, sequence) for sequence in sequences]
    with ThreadPoolExecutor(min(READERS, len(sequences))) as pool:
        return list(pool.map(lambda sequence: _get(store, sequence), sequences))


def _get(store: Store, sequence: int) -> bytes | None:
    try:
        return store.get(entry_key(sequence)).data
    except MissingError:
        return None


def _actor() -> str:
    """Return who acts: $GRAFTLINE_ACTOR (a service account on a cluster), or the user's name."""
    try:
        return os.environ.get("GRAFTLINE_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return f"uid {os.getuid()}"


def _plain(text: str) -> str:
    """Return text of others for a terminal: what does not print is replaced."""
    return "".join(character if character.isprintable() else "?" for character in text)
