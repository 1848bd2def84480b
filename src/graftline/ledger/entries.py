"""An entry of the ledger: what it says, who signed it, and the one form that its bytes have."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from graftline.canonical import canonical_json
from graftline.errors import InputError
from graftline.signing.envelope import pae

Event = Literal["release", "promote", "rollback", "erase", "key", "round"]
START = "0" * 64
"""What the first entry carries as the hash of the one before."""
PAYLOAD_TYPE = "application/vnd.graftline.ledger-entry+json"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BrokenLedgerError(InputError):
    """The ledger is not what its writers signed, or not all of it is there."""


@dataclass(frozen=True)
class Fact:
    """Something that happened, before it has a place in the ledger."""

    event: Event
    task: str
    """Empty for a key."""
    version: int
    """0 for a key and for a federated round."""
    digest: str
    """The sha256 of what it is about: the release's manifest, the receipt of an erasure, the key (its id), the record
    of the model that a federated round made, or the detail of a round that made none."""
    id: str
    """The same for each try of the same act, so that a retry adds nothing."""
    alias: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON: of a key what happens to it and the key itself, of an erasure what it touched, of a federated round whose
    updates went in and whose were left out (graftline.federated.account)."""


@dataclass(frozen=True)
class Entry:
    """One entry as stored. The fields of a fact, and where, when and by whom it was entered."""

    sequence: int
    """1 for the first."""
    previous: str
    """The sha256 of the bytes of the entry before."""
    root: str
    """The root of the Merkle tree over the bytes of all entries before (hex)."""
    event: Event
    task: str
    version: int
    digest: str
    id: str
    alias: str | None
    detail: Mapping[str, Any]
    at: str
    """ISO 8601, UTC."""
    actor: str
    key: str
    """The id of the key that signed it."""
    signature: str
    """Base64, over the DSSE pre-authentication encoding of the entry without this field."""

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    @cached_property
    def data(self) -> bytes:
        """Its bytes in the store: a leaf of the tree."""
        return canonical_json(self.as_dict())

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        value = self.as_dict()
        del value["signature"]
        return pae(PAYLOAD_TYPE, canonical_json(value))

    @property
    def raw_signature(self) -> bytes:
        return base64.b64decode(self.signature, validate=True)


_FIELDS = tuple(spec.name for spec in fields(Entry))


ENTRY_KEY = re.compile(r"ledger/([0-9]{8})\.json")


def entry_key(sequence: int) -> str:
    return f"ledger/{sequence:08d}.json"


def parse_entry(url: str, key: str, data: bytes) -> Entry:
    """Return the entry that `data` is, in its one form. Neither its place nor its signature is checked.

    Raises:
        BrokenLedgerError: it is not one.
    """
    try:
        value = json.loads(data)
        if isinstance(value, dict) and "signature" not in value:
            raise broken(
                url,
                key,
                "not an entry (it has no signature)",
                fix="it was changed, or is of a version that did not sign: start a new store",
            )
        entry = Entry(**value)
        fault = _fault(entry)
        # One form only: a hash of the parsed entry is a hash of the stored bytes.
        fault = fault or ("" if entry.data == data else "not in canonical form")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        fault = str(error)
    if fault:
        raise broken(url, key, f"not an entry ({fault[:200]})")
    return entry


def broken(url: str, key: str, found: str, *, expected: str = "", fix: str = "") -> BrokenLedgerError:
    """Return the error for an entry that is not what it should be."""
    return BrokenLedgerError(
        f"{url}/{key}", found, expected=expected, fix=fix or "the ledger was changed: restore it from a backup"
    )


def _fault(entry: Entry) -> str:
    """Return what is wrong with the kinds of the fields' values; an empty string if nothing is."""
    texts = {name: getattr(entry, name) for name in ("task", "id", "at", "actor")}
    digests = {name: getattr(entry, name) for name in ("previous", "root", "digest", "key")}
    if bad := [name for name, value in texts.items() if not isinstance(value, str)]:
        return f"{bad[0]} is no text"
    if bad := [n for n, v in digests.items() if not (isinstance(v, str) and _SHA256.fullmatch(v))]:
        return f"{bad[0]} is no sha256"
    if type(entry.sequence) is not int or type(entry.version) is not int or entry.version < 0:
        return "sequence or version is no whole number"
    if entry.event not in get_args(Event):
        return "an unknown event"
    if not isinstance(entry.alias, str | None) or not isinstance(entry.detail, dict):
        return "alias or detail is of another kind"
    try:
        same = base64.b64encode(entry.raw_signature).decode() == entry.signature
    except (TypeError, ValueError, binascii.Error):
        same = False
    return "" if same else "the signature is not base64"
