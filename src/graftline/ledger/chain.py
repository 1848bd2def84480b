"""Entries verified one after another: number, hash of the one before, root of all before, key and signature."""

from __future__ import annotations

from graftline.digests import sha256_bytes
from graftline.ledger.entries import START, BrokenLedgerError, Entry, broken, entry_key, parse_entry
from graftline.ledger.merkle import Tree, leaf_hash
from graftline.ledger.trust import Trust


class Chain:
    """The start of a ledger, verified, with what follows from it."""

    def __init__(self, url: str) -> None:
        self.url = url
        """The store's, for errors."""
        self.entries: list[Entry] = []
        self.tree = Tree()
        self.trust = Trust()
        self._previous = START
        self._by_id: dict[str, Entry] = {}
        self._releases: dict[tuple[str, int], Entry] = {}
        self.aliases: dict[tuple[str, str], Entry] = {}
        """The entry that decides where each alias points, by task and alias."""

    @property
    def previous(self) -> str:
        """What the next entry carries as the hash of the one before."""
        return self._previous

    def current(self, task: str, alias: str) -> Entry | None:
        """Return the entry that decides where `alias` of `task` points."""
        return self.aliases.get((task, alias))

    def released(self, task: str, version: int) -> Entry | None:
        """Return the entry by which a version was released: the first, which no later one can change."""
        return self._releases.get((task, version))

    def find(self, identity: str) -> Entry | None:
        """Return the first entry with this id."""
        return self._by_id.get(identity)

    def add(self, data: bytes, *, signature: bool = True) -> Entry:
        """Verify the bytes of the next entry and include it. Raises BrokenLedgerError."""
        entry = parse_entry(self.url, entry_key(len(self.entries) + 1), data)
        self.check(entry, signature=signature)
        self.include(entry)
        return entry

    def check(self, entry: Entry, *, signature: bool = True) -> None:
        """Raise BrokenLedgerError unless `entry` is the next one.

        Args:
            signature: whether to check it; False for what was checked before.
        """
        sequence, root = len(self.entries) + 1, self.tree.root().hex()
        if (entry.sequence, entry.previous) != (sequence, self._previous):
            raise self._broken(
                f"follows {entry.previous} as entry {entry.sequence}", f"{self._previous} as entry {sequence}"
            )
        if entry.root != root:
            raise self._broken(f"names {entry.root} as the root of all before", root)
        try:
            self.trust.check(entry, signature=signature)
        except ValueError as error:
            raise self._broken(str(error), "an entry as a trusted key signed it") from None

    def include(self, entry: Entry) -> None:
        """Add an entry that `check` has passed."""
        self.entries.append(entry)
        self.tree.append(leaf_hash(entry.data))
        self.trust.include(entry)
        self._previous = sha256_bytes(entry.data)
        self._by_id.setdefault(entry.id, entry)
        if entry.alias is not None:
            self.aliases[entry.task, entry.alias] = entry
        if entry.event == "release":
            self._releases.setdefault((entry.task, entry.version), entry)

    def _broken(self, found: str, expected: str) -> BrokenLedgerError:
        return broken(self.url, entry_key(len(self.entries) + 1), found, expected=expected)
