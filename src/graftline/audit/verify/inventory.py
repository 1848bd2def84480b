"""What a store may hold, by key: every kind of object is checked by one part of verify, and all else is unexpected."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graftline.audit.verify.hashing import read_all, readers_of, stats

if TYPE_CHECKING:
    from graftline.store import Store

_SHA = "[0-9a-f]{64}"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
KINDS = {
    "ledger": re.compile(r"ledger/([0-9]{8})\.json"),
    "record": re.compile(rf"records/({_SHA})\.json"),
    "signature": re.compile(rf"signatures/({_SHA})/({_SHA})\.json"),
    "lock": re.compile(rf"locks/({_SHA})\.txt"),
    "key": re.compile(rf"keys/({_SHA})\.pem"),
    "alias": re.compile(r"aliases/([a-z0-9][a-z0-9_-]{0,62})/([a-z][a-z0-9_-]{0,62})\.json"),
    "release": re.compile(r"releases/([a-z0-9][a-z0-9_-]{0,62})/([1-9][0-9]{0,14})/(.+)"),
    "rows": re.compile(rf"(?:rows|subjects)/(?:{_NAME}/)+{_NAME}"),
    "erasure": re.compile(r"erasures/([0-9a-f]{16}-[0-9]{1,9})\.json"),
    "blocklist": re.compile(r"erased/([a-z0-9][a-z0-9_-]{0,62})\.json"),
    "plan": re.compile(r"erased/plans/([0-9a-f]{16}-[0-9]{1,9})\.json"),
    "run": re.compile(rf"runs/(?:{_NAME}/)*{_NAME}"),
    "sign": re.compile(rf"(?:checkpoints|handover)/(?:{_NAME}/)+(?:note\.{_NAME}|heartbeat(?:\.{_NAME})?)"),
    "bundle": re.compile(rf"(?:checkpoints|handover|federated)/(?:{_NAME}/)+(?!note\.|heartbeat(?:\.|$)){_NAME}"),
}
"""Patterns of the keys of each kind. A key is of at most one."""
_REPLACED = re.compile(r"aliases/.+|erased/[^/]+\.json|(?:rows|subjects)/tasks/[^/]+\.json")
"""What writers replace. All else is written once."""


class Inventory:
    """The keys of a store, by kind, and how its small objects are read."""

    def __init__(self, store: Store, readers: int | None = None) -> None:
        """List the store; `readers` is how many objects are read at once (by default as its kind bears)."""
        self.store, self.readers = store, readers or readers_of(store)
        self.keys = frozenset(store.list(""))
        self._tags = self._read_tags()
        self.of: defaultdict[str, list[re.Match[str]]] = defaultdict(list)
        """Each key of a kind, as its pattern's match."""
        self.unexpected: list[str] = []
        self.releases: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        """The files' paths of each release, manifest and claim among them."""
        self.signatures: defaultdict[str, list[str]] = defaultdict(list)
        """The ids of the keys by which there is a signature of each record."""
        for key in sorted(self.keys):
            self._add(key)

    def read_all(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the content of small objects in the order of `keys`; None where there is none."""
        return read_all(self.store, keys, self.readers)

    def has_changed(self) -> bool:
        """Return whether somebody wrote to the store since it was listed."""
        return frozenset(self.store.list("")) != self.keys or self._read_tags() != self._tags

    def _read_tags(self) -> dict[str, str]:
        keys = [key for key in self.keys if _REPLACED.fullmatch(key)]
        return {key: stat.tag for key, stat in stats(self.store, keys, self.readers) if stat is not None}

    def _add(self, key: str) -> None:
        match = next((m for pattern in KINDS.values() if (m := pattern.fullmatch(key))), None)
        if match is None:
            self.unexpected.append(key)
            return
        kind = next(name for name, pattern in KINDS.items() if pattern is match.re)
        self.of[kind].append(match)
        if kind == "release":
            self.releases[match[1], int(match[2])].add(match[3])
        elif kind == "signature":
            self.signatures[match[1]].append(match[2])
