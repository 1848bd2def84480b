"""Small ledgers, and changes to them as somebody with the store's password could make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from graftline.canonical import canonical_json
from graftline.ledger.chain import Chain
from graftline.ledger.entries import Entry, Fact
from graftline.ledger.log import Ledger, read_chain
from graftline.signing.keys import PublicKey, Signer, make_private, read_signer
from graftline.store import Store


def fact(identity: str, version: int = 1, alias: str | None = None) -> Fact:
    return Fact("promote" if alias else "release", "digits", version, "0" * 64, identity, alias)


def release(store: Store, *versions: int) -> None:
    ledger = Ledger(store)
    for version in versions:
        ledger.append(lambda _, version=version: fact(f"release-{version}", version))


def new_signer(folder: Path) -> Signer:
    """Return what signs with a new key that no keyring has."""
    pem, public = make_private()
    path = folder / f"{public.keyid}.pem"
    path.write_bytes(pem)
    return read_signer(path)


def path_of(store: Store, sequence: int) -> Path:
    return Path(store.url, "ledger", f"{sequence:08d}.json")


def changed(path: Path, **values: object) -> None:
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | values))


def forge(store: Store, signer: Signer, change: Callable[[Fact], Fact] = lambda fact: fact) -> None:
    """Append what `change` makes of a release, chained as it must be and signed by `signer`, trusted or not."""
    chain = read_chain(store)
    ledger = Ledger(store)
    entry = ledger._sealed(change(fact("forged", 9)), signer)
    assert entry.sequence == len(chain.entries) + 1
    store.put_if_absent(f"ledger/{entry.sequence:08d}.json", entry.data)


def rewrite(store: Store, signer: Signer, change: Callable[[list[Fact]], list[Fact]]) -> None:
    """Make the whole ledger anew by another key, with other facts: nothing in it contradicts itself."""
    old = [fact_of(entry) for entry in read_chain(store).entries[1:]]
    for key in store.list("ledger/"):
        store.delete(key)
    ledger = Ledger.__new__(Ledger)
    ledger._store, ledger._chain, ledger._signer = store, Chain(store.url), None
    from graftline.ledger.cache import Cache

    ledger._cache = Cache(store)
    for one in change(old):
        ledger.append(lambda _, one=one: one, signer=signer)


def fact_of(entry: Entry) -> Fact:
    names = ("event", "task", "version", "digest", "id", "alias", "detail")
    return Fact(**{name: getattr(entry, name) for name in names})


def resigned(entry: Entry, signer: Signer, **values: object) -> bytes:
    import base64

    other = replace(entry, key=signer.keyid, **values)  # type: ignore[arg-type]
    return replace(other, signature=base64.b64encode(signer.sign(other.signed)).decode()).data


def public_of(signer: Signer) -> PublicKey:
    return signer.public
