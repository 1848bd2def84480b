"""Proofs for whoever does not have the ledger: that it holds an entry, that it only grew."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from graftline.errors import InputError
from graftline.ledger.chain import Chain
from graftline.ledger.checkpoint import origin_of
from graftline.ledger.entries import Entry
from graftline.ledger.log import Ledger
from graftline.ledger.merkle import leaf_hash, verify_inclusion


@dataclass(frozen=True)
class InclusionProof:
    """That an entry stands at its place in the ledger of a size and root."""

    origin: str
    size: int
    root: bytes
    entry: Entry
    path: tuple[bytes, ...]
    """The siblings of the leaf, from the lowest (RFC 6962, 2.1.1)."""

    @property
    def holds(self) -> bool:
        """Whether the path leads from the entry's bytes to the root."""
        leaf = leaf_hash(self.entry.data)
        return verify_inclusion(leaf, self.entry.sequence - 1, self.size, self.path, self.root)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON: hashes in hex; `leaf` is the base64 of the entry's bytes, `index` counts from 0."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root": self.root.hex(),
            "index": self.entry.sequence - 1,
            "leaf": base64.b64encode(self.entry.data).decode(),
            "entry": self.entry.as_dict(),
            "path": [step.hex() for step in self.path],
        }


def prove_inclusion(ledger: Ledger | Chain, entry: Entry) -> InclusionProof:
    """Return the proof that `entry`, one of the ledger's, is in it as it stands."""
    tree = ledger.tree
    path = tree.inclusion_proof(entry.sequence - 1)
    return InclusionProof(origin_of(ledger), tree.size, tree.root(), entry, tuple(path))


def release_entry(ledger: Ledger | Chain, task: str, version: int) -> Entry:
    """Return the entry by which a version was released. Raises InputError if there is none."""
    for entry in ledger.entries:
        if (entry.event, entry.task, entry.version) == ("release", task, version):
            return entry
    raise InputError(
        f"{ledger.url}/ledger",
        f"no entry of the release of {task}@{version}",
        expected="one that `graftline ledger` lists",
    )
