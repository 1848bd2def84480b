"""The ledger and the aliases: each entry in its place, signed by a key that was valid there, and all that outside
evidence says of it. One bad entry does not hide the others: those after it are still held against their signatures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftline.audit.verify.findings import Finding, Kind
from graftline.canonical import canonical_json
from graftline.errors import InputError
from graftline.ledger.chain import Chain
from graftline.ledger.checkpoint import Checkpoint, check_checkpoint, check_head, seen, seen_path
from graftline.ledger.entries import BrokenLedgerError, Entry, entry_key, parse_entry
from graftline.signing.keys import Keyring, PublicKey

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.signing.keys import State

_OF_STATE: dict[str, Kind] = {"unknown": "unknown key", "retired": "expired key", "revoked": "revoked key"}
FIRST = entry_key(1)


@dataclass
class LedgerState:
    """What the ledger says, as far as it can be believed."""

    chain: Chain
    """Its start, up to the first entry that is not as it should be."""
    keyring: Keyring
    entries: dict[int, Entry] = field(default_factory=dict)
    """The entries whose signature holds, by sequence."""
    bad: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.bad

    @property
    def last(self) -> int:
        return max([*self.entries, *self.bad], default=0)

    def releases(self) -> dict[tuple[str, int], Entry]:
        """Return the entry that vouches for each release."""
        return {(e.task, e.version): e for e in self._in_order() if e.event == "release"}

    def aliases(self) -> dict[tuple[str, str], Entry]:
        """Return the last word on each (task, alias)."""
        return {(e.task, e.alias): e for e in self._in_order() if e.alias is not None}

    def public(self, keyid: str) -> PublicKey | None:
        """Return a key that the ledger or this machine knows."""
        known = self.keyring.known.get(keyid)
        here = known.public if known else self.keyring.public.get(keyid)
        return self.chain.trust.keys.get(keyid) or here

    def state(self, keyid: str, sequence: int | None) -> State:
        """Return what a key is at a place, or now: by the ledger, or, of a key that it does not name, by this machine.

        A key that this machine revoked is revoked, whatever the ledger says.
        """
        if self.keyring.state(keyid) == "revoked" and self.chain.trust.state(keyid) != "revoked":
            return "revoked"
        if keyid not in self.chain.trust.keys:
            return self.keyring.state(keyid)
        if self.chain.trust.state(keyid, sequence) == "unknown":  # trusted later than the thing was made
            return self.chain.trust.state(keyid)
        return self.chain.trust.state(keyid, sequence)

    def _in_order(self) -> Iterator[Entry]:
        return (self.entries[sequence] for sequence in sorted(self.entries))


def kind_of(state: str) -> Kind:
    """Return the kind of a finding about a signature by a key in this state."""
    return _OF_STATE[state]


def verify_ledger(
    inventory: Inventory,
    keyring: Keyring,
    *,
    checkpoints: Mapping[str, Checkpoint],
    first_key: str | None,
) -> LedgerState:
    """Return the ledger with what is wrong with it."""
    ledger = LedgerState(Chain(inventory.store.url), keyring)
    numbers = sorted(int(match[1]) for match in inventory.of["ledger"])
    _find_gaps(ledger, numbers)
    for key, data in inventory.read_all([entry_key(number) for number in numbers if number]):
        number = int(re.sub(r"\D", "", key))
        if data is not None:
            _verify_entry(ledger, number, data)
    for number in numbers:
        if number == 0:
            ledger.findings.append(Finding(entry_key(0), "unexpected", "entries from 1 on", "entry 0"))
    _compare_outside(ledger, inventory.store.identity, checkpoints, first_key)
    return ledger


def _find_gaps(ledger: LedgerState, numbers: list[int]) -> None:
    """Note the first of each run of entries that are not there, though a later one is."""
    expected = 1
    for number in numbers:
        if number > expected:
            ledger.bad.add(expected)
            more = f" (and those up to {entry_key(number - 1)})" if number > expected + 1 else ""
            ledger.findings.append(
                Finding(entry_key(expected), "missing", f"an entry before {entry_key(number)}", f"none{more}")
            )
        expected = number + 1 if number else expected


def _verify_entry(ledger: LedgerState, number: int, data: bytes) -> None:
    place = entry_key(number)
    try:
        entry = parse_entry(ledger.chain.url, place, data)
    except BrokenLedgerError as error:
        kind: Kind = "unsigned" if "no signature" in error.found else "tampered"
        _bad(ledger, number, Finding(place, kind, error.expected or "an entry of the ledger", error.found))
        return
    try:
        if ledger.whole:
            ledger.chain.check(entry)
            ledger.chain.include(entry)
        else:
            _check_alone(ledger, number, entry)
    except (BrokenLedgerError, ValueError) as error:
        _bad(ledger, number, _entry_finding(ledger, place, entry, error))
        return
    ledger.entries[number] = entry


def _check_alone(ledger: LedgerState, number: int, entry: Entry) -> None:
    """Raise ValueError unless an entry after a bad one is signed, for this place, by a key known so far."""
    if entry.sequence != number:
        raise ValueError(f"entry {entry.sequence} stands in its place")
    if not ledger.chain.trust.keys:  # the first entry is bad: nobody can say who may sign
        return
    ledger.chain.trust.check(entry)
    ledger.chain.trust.include(entry)


def _entry_finding(ledger: LedgerState, place: str, entry: Entry, error: Exception) -> Finding:
    """Return why an entry is refused: its key, if that is the reason, else what differs."""
    trust = ledger.chain.trust
    state = trust.state(entry.key, entry.sequence) if entry.sequence > 1 else "valid"
    if isinstance(error, InputError):
        expected, actual = error.expected, error.found
    else:
        expected, actual = f"entry {place} as it was signed", str(error)
    kind = kind_of(state) if state != "valid" and f"key {entry.key}" in actual else "tampered"
    return Finding(place, kind, expected, actual)


def _bad(ledger: LedgerState, number: int, finding: Finding) -> None:
    ledger.bad.add(number)
    ledger.findings.append(finding)


def _compare_outside(
    ledger: LedgerState, store: str, checkpoints: Mapping[str, Checkpoint], first_key: str | None
) -> None:
    """Compare the ledger with what was kept elsewhere; without any of it, nothing tells it from one made anew."""
    kept = dict(checkpoints)
    if last := seen(store):
        kept[f"the last checkpoint seen here ({seen_path(store)})"] = last
    for name, checkpoint in kept.items():
        _compare_checkpoint(ledger, name, checkpoint)
    first = ledger.chain.trust.first
    if first_key is not None:
        if first is not None and first.startswith(first_key):
            ledger.anchors.append(f"it begins with key {first}, as was asked for")
        else:
            kind: Kind = "unknown key" if first else "missing"
            ledger.findings.append(
                Finding(FIRST, kind, f"key {first_key}", f"key {first}" if first else "no entry")
            )
        return
    trusted = ledger.keyring.public
    known = set(trusted) | set(ledger.keyring.known)
    if first in known:
        ledger.anchors.append(f"its first key, {first}, is known on this machine")
    elif own := [entry for entry in ledger.chain.entries if entry.key in trusted]:
        # Its signature is over the root of all before it.
        ledger.anchors.append(
            f"entry {own[-1].sequence} is by key {own[-1].key}, which is trusted on this machine"
        )
    elif first and not ledger.anchors:
        expected = (
            "a key that is known here, a checkpoint (--checkpoint) or its first key's fingerprint (--key)"
        )
        ledger.findings.append(Finding(FIRST, "unknown key", expected, f"key {first}"))


def _compare_checkpoint(ledger: LedgerState, name: str, checkpoint: Checkpoint) -> None:
    if not ledger.whole and checkpoint.size > len(ledger.chain.entries):
        if checkpoint.size > ledger.last:
            _add_cut_off(ledger, name, checkpoint)
        return  # it cannot be compared, and what is wrong is said already
    if checkpoint.size > len(ledger.chain.entries):
        _add_cut_off(ledger, name, checkpoint)
        return
    try:
        # What this machine remembers carries no signature: it lies beside the keys.
        (check_checkpoint if checkpoint.signature else check_head)(checkpoint, ledger.chain, where=name)
    except BrokenLedgerError as error:
        places = f"ledger/00000001.json to {entry_key(checkpoint.size)}"
        ledger.findings.append(Finding(places, "tampered", f"{error.expected}, by {name}", error.found))
        ledger.bad.add(checkpoint.size)
        return
    ledger.anchors.append(f"checkpoint at entry {checkpoint.size} ({name})")


def _add_cut_off(ledger: LedgerState, name: str, checkpoint: Checkpoint) -> None:
    place = entry_key(ledger.last + 1)
    ledger.findings.append(
        Finding(place, "missing", f"{checkpoint.size} entries, by {name}", f"{ledger.last} entries")
    )
    ledger.bad.add(ledger.last + 1)


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
            key, "tampered", f"version {entry.version}, by {entry_key(entry.sequence)}, the ledger's last word",
            f"version {int(said[2])}, by entry {int(said[1])}" if said else _shown(data),
        )  # fmt: skip


def _shown(data: bytes) -> str:
    return f"{data[:80]!r}" if data else "no content"
