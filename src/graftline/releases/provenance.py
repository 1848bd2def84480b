"""What a store keeps of a run whether or not a release came of it: records, their signatures, locks, public keys.

records/<sha256>.json               each record, by its own digest
signatures/<sha256>/<key id>.json   its envelope; of several good ones by a key the first stands
locks/<sha256>.txt                  the requirements.lock that records name
keys/<key id>.pem                   for a reader's convenience: whom to trust is not the store's to say
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.ledger.entries import entry_key
from graftline.ledger.log import Ledger
from graftline.signing.envelope import STATEMENT_TYPE, open_envelope
from graftline.signing.keyring import Keyring
from graftline.signing.keys import PublicKey
from graftline.signing.trusted import AGAIN, check_signed
from graftline.store import Store

CHANGED = "the store was changed by hand"


@dataclass(frozen=True)
class Provenance:
    """The records of a run's outputs by the output's name, and what belongs to them."""

    records: Mapping[str, bytes]
    envelopes: Mapping[str, bytes] = field(default_factory=dict)
    """The envelope of each record by the same name; a record without one is stored unsigned."""
    locks: Mapping[str, bytes] = field(default_factory=dict)
    """Lock files by their sha256."""


def check(provenance: Provenance, keyring: Keyring) -> dict[str, list[str]]:
    """Return the ids of the trusted keys that signed each record, by the record's name.

    Raises:
        InputError: an envelope is not of a trusted key over its record.
    """
    return {
        name: check_signed(provenance.records[name], STATEMENT_TYPE, envelope, keyring, where=f"the envelope of {name}")
        for name, envelope in sorted(provenance.envelopes.items())
    }


def check_revoked(signed: Mapping[str, list[str]], ledger: Ledger) -> None:
    """Raise InputError if the store's ledger has revoked a key that signed a record.

    Args:
        signed: what `check` returned.
    """
    for name, keyids in sorted(signed.items()):
        for keyid in keyids:
            if ledger.trust.state(keyid) == "revoked":
                sequence, _ = ledger.trust.since(keyid)[-1]
                raise InputError(
                    f"the envelope of {name}",
                    f"signed by key {keyid}, which was revoked by {entry_key(sequence)}",
                    expected=f"the signature of a key that is not revoked in {ledger.url}",
                    fix=f"{AGAIN}, and `graftline keys revoke` that key here too",
                )


def keep(store: Store, provenance: Provenance, keyring: Keyring, *, signer: PublicKey | None = None) -> None:
    """Store everything that is not there yet; a second call changes nothing.

    Args:
        signer: a key that is stored besides those that signed a record.

    Raises:
        InputError: an envelope is not of a trusted key over its record, or other bytes are in the store.
    """
    signed = check(provenance, keyring)
    keys = {keyid: keyring.public[keyid] for keyids in signed.values() for keyid in keyids}
    for keyid, public in sorted((keys | ({signer.keyid: signer} if signer else {})).items()):
        put(store, f"keys/{keyid}.pem", public.pem.encode())
    for name, record in sorted(provenance.records.items()):
        put(store, f"records/{sha256_bytes(record)}.json", record)
        for keyid in signed.get(name, ()):
            _keep_envelope(store, record, provenance.envelopes[name], keys[keyid], keyring)
    for digest, lock in sorted(provenance.locks.items()):
        put(store, f"locks/{digest}.txt", lock)


def _keep_envelope(store: Store, record: bytes, envelope: bytes, public: PublicKey, keyring: Keyring) -> None:
    """Store the envelope, unless another one of this key is there: a service signs in other bytes each time."""
    key = f"signatures/{sha256_bytes(record)}/{public.keyid}.json"
    if store.put_if_absent(key, envelope):
        return
    where, known = f"{store.url}/{key}", store.get(key).data
    signed = check_signed(record, STATEMENT_TYPE, known, keyring, where=where, fix=CHANGED)
    if public.keyid not in signed:
        named = ", ".join(keyid for keyid, _ in open_envelope(known).signatures)
        raise InputError(where, f"the signature of key {named}", expected=f"that of {public.keyid}", fix=CHANGED)


def put(store: Store, key: str, content: bytes | Path) -> None:
    """Store what can only be these bytes. Raises InputError if others are there."""
    if not store.put_if_absent(key, content):
        raise InputError(f"{store.url}/{key}", "other bytes are stored there", fix=CHANGED)
