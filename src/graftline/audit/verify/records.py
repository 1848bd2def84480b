"""Records and their signatures: each is what its name says, signed by a key that was valid, and the chain holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.digests import FileDigest, sha256_bytes
from graftline.errors import InputError
from graftline.findings import Finding, kind_of
from graftline.records.model import parse_record
from graftline.signing.envelope import STATEMENT_TYPE, Envelope, open_envelope, pae

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState


@dataclass(frozen=True, slots=True)
class Link:
    """What a record says of one input that a step made."""

    name: str
    content: str
    record: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What verify keeps of a record: a store may have a million of them."""

    name: str
    """The output's name."""
    content: str
    links: tuple[Link, ...]
    lock: str | None


@dataclass
class Records:
    """The records that were read, by sha256."""

    steps: dict[str, Kept] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    """Those that are not what their name says, or are missing."""
    files: dict[str, frozenset[FileDigest]] = field(default_factory=dict)
    """The files of those that releases name."""


def verify_records(
    inventory: Inventory, ledger: LedgerState, wanted: list[str], *, released: Mapping[str, int], follow: bool
) -> tuple[Records, list[Finding]]:
    """Return records with what is wrong with them, with their signatures and with how they hang together.

    Args:
        inventory: its keys.
        ledger: which says what keys were valid when.
        wanted: the sha256 of each record to verify.
        released: of each record that a release names, the place of the first such release in the ledger.
        follow: whether to verify those behind them, too.
    """
    records, waiting = Records(), sorted(set(wanted))
    findings: list[Finding] = []
    seen = set(waiting)
    while waiting:
        for key, data in inventory.read_all([f"records/{digest}.json" for digest in waiting]):
            digest = key.removeprefix("records/").removesuffix(".json")
            findings += _verify_record(records, digest, data, keep_files=digest in released)
        behind = {link.record for d in waiting if d in records.steps for link in records.steps[d].links}
        findings += _verify_signatures(inventory, ledger, records, waiting, released)
        waiting = sorted(behind - seen) if follow else []
        seen |= behind
    findings += _verify_links(inventory, records)
    return records, findings


def _verify_record(records: Records, digest: str, data: bytes | None, *, keep_files: bool) -> Iterator[Finding]:
    place = f"records/{digest}.json"
    if data is None:
        records.bad.add(digest)
        yield Finding(place, "missing", f"sha256 {digest}", "nothing")
        return
    if (actual := sha256_bytes(data)) != digest:
        records.bad.add(digest)
        yield Finding(place, "tampered", f"sha256 {digest}", f"sha256 {actual}", step=_step_name(data))
        return
    try:
        record = parse_record(data, place)
    except InputError as error:
        records.bad.add(digest)
        yield Finding(place, "tampered", "a record", error.found[:200])
        return
    links = tuple(Link(given.name, given.sha256, given.record) for given in record.inputs if given.record)
    records.steps[digest] = Kept(record.name, record.content, links, record.lock)
    if keep_files:
        records.files[digest] = frozenset(record.files)


def _step_name(data: bytes) -> str:
    try:
        return str(json.loads(data)["subject"][0]["name"])[:80]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return ""


def _verify_links(inventory: Inventory, records: Records) -> Iterator[Finding]:
    """Yield each input whose record is not there or is of other content."""
    for digest, step in records.steps.items():
        for link in step.links:
            if link.record in records.bad:
                continue  # said already
            place, behind = f"records/{link.record}.json", records.steps.get(link.record)
            if behind is None and place not in inventory.keys:
                yield Finding(place, "missing", f"the {link.name} of records/{digest}.json", "nothing", step=link.name)
            elif behind is not None and behind.content != link.content:
                yield Finding(
                    f"records/{digest}.json",
                    "tampered",
                    f"{link.name} of content {behind.content}",
                    link.content,
                    step=step.name,
                )


def _verify_signatures(
    inventory: Inventory, ledger: LedgerState, records: Records, digests: list[str], released: Mapping[str, int]
) -> Iterator[Finding]:
    signed = {digest: inventory.signatures.get(digest, []) for digest in digests}
    keys = [f"signatures/{digest}/{keyid}.json" for digest in digests for keyid in signed[digest]]
    for key, data in inventory.read_all(keys):
        _, digest, name = key.split("/")
        step = records.steps.get(digest)
        found = check_signature(ledger, key, data or b"", digest, name.removesuffix(".json"), released.get(digest))
        if found is not None:
            yield Finding(key, found.kind, found.expected, found.actual, step=step.name if step else "")
    for digest, by in signed.items():
        if not by and digest in records.steps:
            yield Finding(
                f"records/{digest}.json",
                "unsigned",
                f"signatures/{digest}/<key id>.json",
                "nothing",
                step=records.steps[digest].name,
            )


def check_signature(
    ledger: LedgerState, place: str, data: bytes, digest: str, keyid: str, sequence: int | None
) -> Finding | None:
    """Return what is wrong with the envelope of a record (by sha256) by a key, or None."""
    try:
        envelope = open_envelope(data, where=place)
    except InputError as error:
        return Finding(place, "tampered", "a signature envelope", error.found)
    if envelope.payload_type != STATEMENT_TYPE or sha256_bytes(envelope.payload) != digest:
        actual = f"{envelope.payload_type} over sha256 {sha256_bytes(envelope.payload)}"
        return Finding(place, "tampered", f"{STATEMENT_TYPE} over sha256 {digest}", actual)
    if len(envelope.signatures) != 1 or envelope.signatures[0][0] != keyid:
        named = ", ".join(name for name, _ in envelope.signatures)
        return Finding(place, "tampered", f"the signature of key {keyid}", f"that of {named or 'none'}")
    return check_envelope(ledger, place, envelope, sequence)


def check_envelope(ledger: LedgerState, place: str, envelope: Envelope, sequence: int | None) -> Finding | None:
    """Return what is wrong with an envelope's only signature, or None.

    Args:
        ledger: which says what keys were valid when.
        place: of the envelope.
        envelope: with one signature.
        sequence: the entry by which it was made; None if no entry says so: then what the key is now counts.
    """
    keyid, signature = envelope.signatures[0]
    public = ledger.public(keyid)
    if public is None:
        return Finding(place, "unknown key", "a key that the ledger or this machine knows", f"key {keyid}")
    if not public.verify(pae(envelope.payload_type, envelope.payload), signature):
        return Finding(place, "tampered", f"a signature of key {keyid}", "one that is not")
    if (state := ledger.state(keyid, sequence)) in ("unknown", "revoked"):
        return Finding(place, kind_of(state), "a key that was valid", f"key {keyid}, which is {state}")
    return None


def read_sealed(ledger: LedgerState, place: str, data: bytes, payload_type: str) -> tuple[Any, Finding | None]:
    """Return the JSON value that one known key sealed, and what is wrong with it; (None, finding) if it is not one."""
    try:
        envelope = open_envelope(data, where=place)
        value = json.loads(envelope.payload)
    except (InputError, ValueError, RecursionError) as error:
        return None, Finding(place, "tampered", "a signed JSON value", getattr(error, "found", str(error)))
    if envelope.payload_type != payload_type or len(envelope.signatures) != 1:
        return None, Finding(place, "tampered", f"one signature over {payload_type}", envelope.payload_type)
    return value, check_envelope(ledger, place, envelope, None)
