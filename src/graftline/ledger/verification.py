"""Is the ledger what its writers signed, all of it, and are they who they should be?

Each entry is held against its place, its signature and the key that was valid there; one bad entry does not hide the
others: those after it are still held against their signatures. A ledger that agrees with itself may still have been
made anew, by another key, or cut off at its end. What says that it was not comes from outside the store: a checkpoint
that was kept, the last one seen here, the key that it must begin with, or a key that this machine trusts and that
signed some of it. Without any of them the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from graftline.errors import InputError
from graftline.findings import Finding, Kind, kind_of
from graftline.ledger.chain import Chain
from graftline.ledger.checkpoint import TreeHead, check_checkpoint, check_head, head_of, remember, seen, seen_path
from graftline.ledger.entries import ENTRY_KEY, BrokenLedgerError, Entry, entry_key, parse_entry
from graftline.signing.keyring import Keyring, load_keyring
from graftline.signing.keys import PublicKey, State
from graftline.store import Store

Status = Literal["ok", "broken", "unknown"]
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
    """What from outside the store vouches for it."""
    unvouched: Finding | None = None
    """That nothing from outside does: it may have been made anew. No fault by itself."""

    @property
    def status(self) -> Status:
        if self.findings:
            return "broken"
        return "unknown" if self.unvouched else "ok"

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


def verify_ledger(
    store: Store,
    entries: Iterable[tuple[str, bytes | None]],
    *,
    checkpoints: Mapping[str, TreeHead] | None = None,
    first_key: str | None = None,
) -> LedgerState:
    """Return the ledger with what is wrong with it, and what from outside the store vouches for it.

    Args:
        store: whose ledger it is.
        entries: key and bytes of all that is stored as an entry, by key; None for what is not there.
        checkpoints: kept ones, each with what to call it. The last one seen here is always compared.
        first_key: the id, or its beginning, of the key that the ledger must begin with.

    Raises:
        GraftlineError: the store cannot be read, so that nothing can be said.
    """
    ledger = LedgerState(Chain(store.url), load_keyring(create=False))
    expected = 1
    for key, data in entries:
        match = ENTRY_KEY.fullmatch(key)
        number = int(match[1]) if match else 0
        if number == 0:
            ledger.findings.append(Finding(key, "unexpected", "entries from 1 on", "there"))
        elif data is not None:
            if number > expected:
                _add_gap(ledger, expected, number)
            expected = number + 1
            _verify_entry(ledger, number, data)
    _compare_outside(ledger, store.identity, checkpoints or {}, first_key)
    return ledger


def remember_verified(ledger: LedgerState, store: Store) -> None:
    """Compare the ledger from now on with what it is now, if something vouches for that."""
    if ledger.status == "ok" and ledger.chain.entries:
        remember(store.identity, head_of(ledger.chain))


def _add_gap(ledger: LedgerState, first: int, number: int) -> None:
    """Note that the entries from `first` to before `number` are not there, though that one is."""
    ledger.bad.add(first)
    more = f" (and those up to {entry_key(number - 1)})" if number > first + 1 else ""
    expected = f"an entry before {entry_key(number)}"
    ledger.findings.append(Finding(entry_key(first), "missing", expected, f"none{more}"))


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
    ledger: LedgerState, store: str, checkpoints: Mapping[str, TreeHead], first_key: str | None
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
            ledger.findings.append(Finding(FIRST, kind, f"key {first_key}", f"key {first}" if first else "no entry"))
        return
    trusted = ledger.keyring.public
    if first in trusted:
        ledger.anchors.append(f"its first key, {first}, is trusted on this machine")
    elif own := [entry for entry in ledger.chain.entries if entry.key in trusted]:
        # Its signature is over the root of all before it.
        ledger.anchors.append(f"entry {own[-1].sequence} is by key {own[-1].key}, which is trusted on this machine")
    elif first and not ledger.anchors:
        expected = "a key that is trusted here, a checkpoint (--checkpoint) or its first key's fingerprint (--key)"
        ledger.unvouched = Finding(FIRST, "unknown key", expected, f"key {first}")


def _compare_checkpoint(ledger: LedgerState, name: str, checkpoint: TreeHead) -> None:
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


def _add_cut_off(ledger: LedgerState, name: str, checkpoint: TreeHead) -> None:
    place = entry_key(ledger.last + 1)
    ledger.findings.append(Finding(place, "missing", f"{checkpoint.size} entries, by {name}", f"{ledger.last} entries"))
    ledger.bad.add(ledger.last + 1)
