"""The aliases: each says what the ledger says last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from graftline.canonical import canonical_json
from graftline.findings import Finding
from graftline.ledger.entries import Entry, entry_key

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState


def verify_aliases(inventory: Inventory, ledger: LedgerState, tasks: frozenset[str] | None) -> list[Finding]:
    """Return the aliases that do not say what the ledger says last; of some tasks, or of all."""
    words = {k: e for k, e in ledger.aliases().items() if tasks is None or k[0] in tasks}
    found = {(m[1], m[2]): m[0] for m in inventory.of["alias"] if tasks is None or m[1] in tasks}
    findings = []
    for which, entry in words.items():
        if which not in found and ledger.whole:
            expected = f"version {entry.version}, by {entry_key(entry.sequence)}"
            findings.append(Finding(f"aliases/{which[0]}/{which[1]}.json", "missing", expected, "nothing"))
    for key, data in inventory.read_all(sorted(found.values())):
        task, alias = key.removeprefix("aliases/").removesuffix(".json").split("/")
        if data is not None:
            findings += _verify_alias(ledger, key, data, words.get((task, alias)))
    return findings


def _verify_alias(ledger: LedgerState, key: str, data: bytes, entry: Entry | None) -> Iterator[Finding]:
    pattern = rb'\{"entry":([0-9]{1,8}),"version":([0-9]{1,15})\}'
    said = re.fullmatch(pattern, data)
    if said and (number := int(said[1])) > ledger.last and ledger.whole:
        yield Finding(entry_key(number), "missing", f"the entry that {key} names", f"{ledger.last} entries")
    if said and not ledger.whole and (number in ledger.bad or number > ledger.last):
        return  # what is wrong with that entry is said already
    if entry is None:
        if ledger.whole:
            yield Finding(key, "unexpected", "no such alias, by the ledger", _shown(data))
        return
    want = canonical_json({"version": entry.version, "entry": entry.sequence})
    if data != want:
        yield Finding(
            key,
            "tampered",
            f"version {entry.version}, by {entry_key(entry.sequence)}, the ledger's last word",
            f"version {int(said[2])}, by entry {int(said[1])}" if said else _shown(data),
        )


def _shown(data: bytes) -> str:
    return f"{data[:80]!r}" if data else "no content"
