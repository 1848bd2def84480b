"""Federated rounds: what an entry says of an update is what its site signed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.findings import Finding
from graftline.ledger.entries import entry_key
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
    lines = [(e.sequence, line) for e in rounds for line in e.detail.get("sites", [])]
    keys = [f"records/{line['record']}.json" for _, line in lines]
    for (sequence, line), (key, data) in zip(lines, inventory.read_all(keys), strict=True):
        if data is not None and sha256_bytes(data) == line["record"] and (found := _fault(line, data, key)):
            expected = f"the update of {line['site']} as entry {entry_key(sequence)} tells of it"
            yield Finding(entry_key(sequence), "tampered", expected, found, step="update")


def _fault(line: Mapping[str, Any], data: bytes, key: str) -> str:
    """Return how an entry's line differs from the record that it names; an empty string if it does not."""
    try:
        public = PublicKey.from_pem(line["public_key"], where=key)
        signature = base64.b64decode(line["signature"], validate=True)
        record = parse_record(data, key)
    except (InputError, KeyError, TypeError, ValueError) as error:
        return f"not an update's line ({error})"[:200]
    if public.keyid != line["key"] or not public.verify(pae(STATEMENT_TYPE, data), signature):
        return f"a record that key {line['key']} did not sign"
    said = (record.name, record.content, record.metrics.get("rows"))
    if said != ("update", line["update"], line["rows"]):
        return f"a record of {said[0]} {said[1]}, {said[2]} rows"
    return ""
