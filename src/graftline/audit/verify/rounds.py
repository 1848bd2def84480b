"""Federated rounds: what an entry says of an update is what its site signed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.findings import Finding
from graftline.ledger.entries import Entry, entry_key
from graftline.records.model import parse_record
from graftline.signing.envelope import STATEMENT_TYPE, pae
from graftline.signing.keys import PublicKey

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState


def verify_rounds(inventory: Inventory, ledger: LedgerState, task: str | None) -> Iterator[Finding]:
    """Yield the updates that an entry tells of otherwise than their sites' signed records.

    The record's own bytes, and the coordinator's signature over them, are held against their names as all records are.

    Args:
        inventory: its keys.
        ledger: with the rounds' entries.
        task: of which; None for all.
    """
    rounds = [e for e in ledger.entries.values() if e.event == "round" and task in (None, e.task)]
    lines = []
    for entry in rounds:
        told = _lines(entry.detail)
        if found := "a line without a site or a record" if told is None else _twice(told):
            yield Finding(entry_key(entry.sequence), "tampered", "each site's update once", found, step="update")
        lines += [(entry, line) for line in told or ()]
    keys = [f"records/{line['record']}.json" for _, line in lines]
    for (entry, line), (key, data) in zip(lines, inventory.read_all(keys), strict=True):
        if data is not None and sha256_bytes(data) == line["record"] and (found := _fault(entry, line, data, key)):
            expected = f"the update of {line['site']} as entry {entry_key(entry.sequence)} tells of it"
            yield Finding(entry_key(entry.sequence), "tampered", expected, found, step="update")


def _lines(detail: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return an entry's lines, one an update; None if they are none."""
    lines = detail.get("sites", [])
    if not isinstance(lines, list):
        return None
    good = (isinstance(one, dict) and type(one.get("site")) is str and type(one.get("record")) is str for one in lines)
    return lines if all(good) else None


def _twice(lines: Sequence[Mapping[str, Any]]) -> str:
    for what in ("site", "key", "record"):
        values = [str(one.get(what)) for one in lines]
        if len(set(values)) < len(values):
            return f"a {what} twice"
    return ""


def _fault(entry: Entry, line: Mapping[str, Any], data: bytes, key: str) -> str:
    """Return how an entry's line differs from the record that it names; an empty string if it does not."""
    try:
        public = PublicKey.from_pem(line["public_key"], where=key)
        signature = base64.b64decode(line["signature"], validate=True)
        record = parse_record(data, key)
        keyid, told = line["key"], ("update", line["update"], line["rows"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        return f"not an update's line ({error})"[:200]
    if public.keyid != keyid or not public.verify(pae(STATEMENT_TYPE, data), signature):
        return f"a record that key {keyid} did not sign"
    said = (record.name, record.content, record.metrics.get("rows"))
    if said != told:
        return f"a record of {said[0]} {said[1]}, {said[2]} rows"
    start = record.input("start")
    asked = (record.task, record.parameters.get("run"), record.metrics.get("round"), start and start.sha256)
    if asked != (entry.task, *(entry.detail.get(name) for name in ("run", "round", "start"))):
        return f"an update of task {asked[0]}, run {asked[1]}, round {asked[2]}, from model {asked[3]}"
    return ""
