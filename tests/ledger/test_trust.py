"""Which keys may write: what the ledger says of them, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from facts import fact, forge, new_signer, release

from graftline.errors import InputError, RefusalError
from graftline.ledger.entries import BrokenLedgerError
from graftline.ledger.log import Ledger, key_event, read_chain
from graftline.ledger.trust import key_fact
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import Signer
from graftline.store import Store


@pytest.fixture
def other(tmp_path: Path) -> Signer:
    return new_signer(tmp_path)


def own() -> Signer:
    return load_keyring().signer()


def test_a_writer_whose_key_is_unknown_is_told_who_can_help(store: Store, other: Signer) -> None:
    with pytest.raises(RefusalError) as caught:
        Ledger(store).append(lambda _: fact("x", 9), signer=other)
    line = str(caught.value)
    assert "\n" not in line
    assert other.keyid in line
    assert f"anna (key {own().keyid[:12]}) must run `graftline keys trust`" in line
    assert len(read_chain(store).entries) == 4, "nothing was entered"


def test_a_trusted_key_writes_until_it_is_retired(store: Store, other: Signer) -> None:
    assert key_event(store, "trust", other.public).sequence == 5  # type: ignore[union-attr]
    assert key_event(store, "trust", other.public) is None, "it is trusted already"
    Ledger(store).append(lambda _: fact("by-other", 5), signer=other)
    key_event(store, "retire", other.public)
    with pytest.raises(RefusalError, match="the key is retired"):
        Ledger(store).append(lambda _: fact("later", 6), signer=other)
    ledger = Ledger(store)
    assert [entry.key == other.keyid for entry in ledger.entries] == [False] * 5 + [True, False]
    assert [ledger.trust.state(other.keyid, n) for n in (4, 5, 6, 7, 8, 99)] == [
        "unknown",
        "unknown",
        "valid",
        "valid",
        "retired",
        "retired",
    ]
    assert ledger.trust.state(other.keyid) == "retired"
    assert ledger.trust.state(own().keyid, 1) == "valid"
    assert ledger.trust.since(other.keyid) == [(5, "valid"), (7, "retired")]
    assert ledger.trust.first == own().keyid
    key_event(store, "trust", other.public)
    assert Ledger(store).append(lambda _: fact("again", 7), signer=other) is not None


def test_a_key_hands_over_to_the_next(store: Store, other: Signer) -> None:
    old = own()
    key_event(store, "trust", other.public, signer=old)
    key_event(store, "retire", old.public, signer=other)
    with pytest.raises(RefusalError, match="the key is retired"):
        release(store, 4)
    assert Ledger(store).append(lambda _: fact("x", 5), signer=other) is not None
    assert set(Ledger(store).trust.valid()) == {other.keyid}


def test_a_revoked_key_never_comes_back(store: Store, other: Signer) -> None:
    key_event(store, "trust", other.public)
    Ledger(store).append(lambda _: fact("before", 5), signer=other)
    key_event(store, "revoke", other.public)
    with pytest.raises(InputError, match="was revoked, which is not taken back"):
        key_event(store, "trust", other.public)
    assert read_chain(store).entries[5].key == other.keyid, "what it signed before stands in its place"


def test_the_last_valid_key_stays_and_an_unknown_one_cannot_go(store: Store, other: Signer) -> None:
    for action in ("retire", "revoke"):
        with pytest.raises(InputError, match="is the last valid one: trust another first"):
            key_event(store, action, own().public)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="is unknown, so there is nothing to"):
            key_event(store, action, other.public)  # type: ignore[arg-type]
    assert len(read_chain(store).entries) == 4


@pytest.mark.parametrize("state", ["unknown", "retired", "revoked"])
def test_an_entry_by_a_key_that_is_not_valid_breaks_the_ledger(store: Store, other: Signer, state: str) -> None:
    if state != "unknown":
        key_event(store, "trust", other.public)
        key_event(store, "retire" if state == "retired" else "revoke", other.public)
    place = len(read_chain(store).entries) + 1
    forge(store, other)
    with pytest.raises(BrokenLedgerError) as caught:
        read_chain(store)
    assert f"{place:08d}.json: signed by key {other.keyid}, which is {state} there" in str(caught.value)


def test_no_key_trusts_itself(store: Store, other: Signer) -> None:
    forge(store, other, lambda _: key_fact("trust", other.public, "forged"))
    with pytest.raises(BrokenLedgerError, match=r"00000005.json: signed by key \w+, which is unknown there"):
        read_chain(store)


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        ({}, "does not say what happens to which key"),
        ({"action": "trust"}, "does not say"),
        ({"action": "steal"}, "does not say"),
        ({"public_key": "-----BEGIN PUBLIC KEY-----\n"}, "no public key"),
        ({"public_key": "", "action": "retire"}, "no public key"),
    ],
)
def test_a_key_entry_that_names_no_key_is_refused(
    store: Store, other: Signer, detail: dict[str, str], line: str
) -> None:
    whole = key_fact("trust", other.public, "x")
    given = {**whole.detail, **detail} if "public_key" in detail else detail
    bad = replace(whole, detail=given | ({"public_key": other.public.pem} if detail.get("action") == "steal" else {}))
    forge(store, own(), lambda _: bad)
    with pytest.raises(BrokenLedgerError, match=rf"00000005.json: .*{line}"):
        read_chain(store)


def test_a_key_entry_names_the_key_that_it_holds(store: Store, other: Signer, tmp_path: Path) -> None:
    third = new_signer(tmp_path)
    forge(store, own(), lambda _: replace(key_fact("trust", other.public, "x"), digest=third.keyid))
    with pytest.raises(BrokenLedgerError, match=rf"it holds key {other.keyid} and names {third.keyid}"):
        read_chain(store)


def test_an_empty_ledger_begins_with_the_signer_then_the_key(tmp_path: Path, other: Signer) -> None:
    from graftline.store.opening import open_store

    store = open_store(str(tmp_path / "new"))
    key_event(store, "trust", other.public)
    assert [entry.digest for entry in read_chain(store).entries] == [own().keyid, other.keyid]
    assert [entry.key for entry in read_chain(store).entries] == [own().keyid] * 2
