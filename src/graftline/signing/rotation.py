"""A store's ledger learns what became of the keys of this machine: a new one is brought in by the one before it."""

from __future__ import annotations

from graftline.ledger.entries import Entry
from graftline.ledger.log import Ledger, key_event
from graftline.signing.keyring import Keyring
from graftline.signing.keys import PublicKey, Signer
from graftline.store import Store


def open_ledger(store: Store, keyring: Keyring) -> Ledger:
    """Return the store's ledger, which takes entries of the keyring's signer.

    Raises:
        RefusalError: it does not, and no earlier key of this machine can bring in the present one.
        InputError: there is no key to sign with.
    """
    ledger, signer = Ledger(store), keyring.signer()
    if _outdated(ledger, keyring, signer):
        hand_over(store, keyring)
        ledger = Ledger(store)
    ledger.check_signer(signer.keyid)
    return ledger


def hand_over(store: Store, keyring: Keyring) -> list[Entry]:
    """Enter what the ledger does not know yet of this machine's keys; return the entries.

    The present key is trusted by the word of an earlier one, the earlier ones are retired, revoked keys revoked. A
    ledger without entries stays so: its first entry brings the key that signs it.

    Raises:
        RefusalError: the ledger trusts neither the present key nor an earlier one of this machine.
    """
    signer, ledger = keyring.signer(), Ledger(store)
    if not ledger.entries:
        return []
    entered: list[Entry | None] = []
    if ledger.trust.state(signer.keyid) == "unknown":
        before = [public for public in _earlier(keyring, signer) if ledger.trust.state(public.keyid) == "valid"]
        if before:
            old = keyring.own_signer(before[-1].keyid)
            entered.append(key_event(store, "trust", signer.public, signer=old))
    ledger = Ledger(store)
    ledger.check_signer(signer.keyid)
    for action, public in _ended(ledger, keyring, signer):
        entered.append(key_event(store, "revoke" if action == "revoked" else "retire", public, signer=signer))
    return [entry for entry in entered if entry]


def _outdated(ledger: Ledger, keyring: Keyring, signer: Signer) -> bool:
    """Return whether the ledger knows less of this machine's keys than the keyring."""
    if not ledger.entries:
        return False
    unknown = ledger.trust.state(signer.keyid) == "unknown"
    handed = any(ledger.trust.state(public.keyid) == "valid" for public in _earlier(keyring, signer))
    return (unknown and handed) or bool(_ended(ledger, keyring, signer))


def _earlier(keyring: Keyring, signer: Signer) -> list[PublicKey]:
    """Return this machine's own keys besides the present one that were not revoked, the oldest first."""
    known = keyring.known.values()
    return [k.public for k in known if k.own and k.public.keyid != signer.keyid and k.state != "revoked"]


def _ended(ledger: Ledger, keyring: Keyring, signer: Signer) -> list[tuple[str, PublicKey]]:
    """Return own keys that are retired here and valid in the ledger, and any that are revoked here only."""
    found = []
    for known in keyring.known.values():
        there = ledger.trust.state(known.public.keyid)
        if known.state == "retired" and known.own and there == "valid" and known.public.keyid != signer.keyid:
            found.append(("retired", known.public))
        if known.state == "revoked" and there in ("valid", "retired"):
            found.append(("revoked", known.public))
    return found
