"""The entries that this machine has verified, kept beside the store: `$GRAFTLINE_CACHE/ledger/<sha256 of its
identity>.log`.

A line is the root over all entries up to this one, a space, and the entry. The file only grows; what does not agree
with itself is dropped and read from the store again. Verifying a ledger never looks here.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from graftline.cache import cache_folder
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.ledger.chain import Chain
from graftline.ledger.entries import BrokenLedgerError
from graftline.store import Store

STEP = 32
"""Entries that are worth a write: a short ledger is read from the store each time."""


class Cache:
    """The verified start of a store's ledger. A cache that cannot be written is none."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        try:
            folder = cache_folder()
        except InputError:
            folder = Path(os.devnull)  # in which nothing can be written: there is no cache
        self.path = folder / "ledger" / f"{sha256_bytes(store.identity.encode())}.log"
        self._entries, self._bytes = 0, 0
        """How much of the file is known here."""

    def read(self) -> Chain:
        """Return the entries in it, chained and hashed again; an empty chain if there are none.

        Of the signatures only the last is checked again: it is over the root of all before.
        """
        chain = Chain(self.url)
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                raw = file.read()
        except OSError:
            return chain
        try:
            lines = raw.split(b"\n")
            for number, line in enumerate(lines[:-1], start=2):
                chain.add(line[65:], signature=number == len(lines))
            whole = lines[-1] == b"" and lines[-2][:64] == chain.tree.root().hex().encode()
        except (BrokenLedgerError, IndexError):
            whole = False
        if not whole:
            self.forget()
            return Chain(self.url)
        self._entries, self._bytes = len(chain.entries), len(raw)
        return chain

    def extend(self, chain: Chain) -> None:
        """Add what `chain` has beyond the file, if it is much."""
        new = chain.entries[self._entries :]
        if len(new) < STEP:
            return
        roots = [entry.root for entry in new[1:]] + [chain.tree.root().hex()]
        lines = b"".join(b"%b %b\n" % (root.encode(), entry.data) for root, entry in zip(roots, new, strict=True))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_size == self._bytes:  # else another process has been here
                    file.write(lines)
        except OSError:
            return
        self._entries, self._bytes = len(chain.entries), self._bytes + len(lines)

    def forget(self) -> None:
        """Remove the file."""
        self._entries, self._bytes = 0, 0
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return
