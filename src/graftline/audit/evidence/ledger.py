"""What an evidence file holds of the ledger: some entries, the proof of each, and a signed checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.ledger.checkpoint import TreeHead, check_checkpoint, sign_head
from graftline.ledger.entries import Entry
from graftline.ledger.log import Ledger
from graftline.releases.catalogue import Release
from graftline.store import Store

if TYPE_CHECKING:
    from graftline.signing.keys import PublicKey, Signer


@dataclass(frozen=True)
class LedgerPart:
    """The files by path, and what the rest of the evidence needs of the ledger."""

    files: Mapping[str, bytes]
    keys: Mapping[str, PublicKey]
    """Every key that the ledger ever trusted, by its id."""
    trusted: frozenset[str]
    """Those of them that are not revoked."""
    size: int
    first_key: str
    checkpoint_key: str
    maker: PublicKey | None
    """The key of whoever makes the evidence, if the ledger does not know it: that of someone who may only read."""


def ledger_part(store: Store, release: Release, signer: Signer, kept: Iterable[TreeHead] = ()) -> LedgerPart:
    """Return the entries of the release's task and those of keys and erasures, each with its proof.

    Args:
        kept: checkpoints that someone kept: the ledger is compared with them, and goes in with the proof that it
            only grew since.

    Raises:
        InputError: the ledger is broken, was rewritten since a kept checkpoint, or did not release this manifest.
        RefusalError: the ledger trusts the signer's key no more.
    """
    ledger = Ledger(store)
    is_known = signer.keyid in ledger.trust.keys
    if is_known:
        ledger.check_signer(signer.keyid)
    chosen = [entry for entry in ledger.entries if entry.event in ("key", "erase") or entry.task == release.task]
    said = [e.digest for e in chosen if (e.event, e.task, e.version) == ("release", release.task, release.version)]
    if said != [release.manifest]:
        raise InputError(
            f"{release.path}/manifest.json",
            f"sha256 {release.manifest}",
            expected=f"what the ledger released as {release.name}: {', '.join(said) or 'nothing'}",
            fix="the store was changed: find out with `graftline verify`",
        )
    checkpoint = sign_head(ledger, signer)
    files = {f"ledger/entries/{entry.sequence:08d}.json": entry.data for entry in chosen}
    files["ledger/checkpoint.txt"] = checkpoint.note.encode()
    files["ledger/proofs.json"] = canonical_json(
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "proofs": [
                {
                    "index": entry.sequence - 1,
                    "path": [step.hex() for step in ledger.tree.inclusion_proof(entry.sequence - 1)],
                }
                for entry in chosen
            ],
        }
    )
    kept = list(kept)
    for one in kept:
        check_checkpoint(one, ledger)
    sizes = sorted({one.size for one in kept})
    files["ledger/consistency.json"] = canonical_json(
        {str(size): [step.hex() for step in ledger.tree.consistency_proof(size)] for size in sizes}
    )
    keys = dict(ledger.trust.keys)
    trusted = frozenset(keyid for keyid in keys if ledger.trust.state(keyid) in ("valid", "retired"))
    return LedgerPart(
        files | _receipts(store, chosen, release),
        keys,
        trusted,
        checkpoint.size,
        str(ledger.trust.first),
        signer.keyid,
        None if is_known else signer.public,
    )


def _receipts(store: Store, entries: list[Entry], release: Release) -> dict[str, bytes]:
    """Return the receipts of erasures that concern the task."""
    named = {entry.digest for entry in entries if entry.event == "erase" and entry.task in ("", release.task)}
    if not named:
        return {}
    found = {key: store.get(key).data for key in store.list("erasures/")}
    return {key: data for key, data in found.items() if sha256_bytes(data) in named}
