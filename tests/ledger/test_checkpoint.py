"""Checkpoints: what was kept elsewhere shows that the ledger's end was cut off or that it was made anew."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from facts import changed, fact_of, new_signer, path_of, release, rewrite

from graftline.errors import InputError, RefusalError
from graftline.ledger.checkpoint import (
    TreeHead,
    check_checkpoint,
    head_of,
    make_checkpoint,
    parse_checkpoint,
    remember,
    seen,
    seen_path,
)
from graftline.ledger.entries import BrokenLedgerError
from graftline.ledger.log import Ledger, key_event, read_chain, stored_entries
from graftline.ledger.proofs import prove_inclusion, release_entry
from graftline.ledger.verification import LedgerState, verify_ledger
from graftline.signing.keyring import load_keyring, revoke
from graftline.store import Store
from graftline.store.opening import open_store


@pytest.fixture
def kept(store: Store) -> TreeHead:
    return make_checkpoint(Ledger(store))


def verdict(store: Store, checkpoint: TreeHead | None = None, *, first_key: str | None = None) -> LedgerState:
    kept = {"kept": checkpoint} if checkpoint else {}
    return verify_ledger(store, stored_entries(store), checkpoints=kept, first_key=first_key)


def problem(found: LedgerState) -> str:
    """Return the only finding, in a line."""
    (finding,) = found.findings
    return f"{finding.place}: {finding.actual}; expected {finding.expected}"


def test_a_checkpoint_is_a_signed_note_of_the_tlog_checkpoint_format(store: Store, kept: TreeHead) -> None:
    text, _, signatures = kept.note.partition("\n\n")
    origin, size, root = text.split("\n")
    ledger = Ledger(store)
    assert (int(size), base64.b64decode(root)) == (4, ledger.tree.root())
    assert signatures.endswith("\n") and signatures.count("\n") == 1
    dash, name, signature = signatures.rstrip("\n").split(" ")
    assert (dash, name) == ("\u2014", origin)
    public = load_keyring().signer().public
    raw = base64.b64decode(signature)
    assert raw[:4].hex() == public.keyid[:8], "the first 4 bytes of the sha256 of the key's SubjectPublicKeyInfo"
    assert public.verify(f"{text}\n".encode(), raw[4:])


def test_both_forms_are_read_back_as_they_were(kept: TreeHead) -> None:
    assert "\n" not in kept.line and kept.line.isascii()
    assert parse_checkpoint(kept.note) == parse_checkpoint(kept.line + "\n") == kept


def test_what_is_no_checkpoint_is_refused(kept: TreeHead) -> None:
    note, line = kept.note, kept.line
    for text in (
        "", "x", line[:-21], line + " more", line.replace(" 4 ", " 04 "), line.replace(" 4 ", " 0 "),
        line.replace("/", "+", 1),
        note.replace("\n\n", "\n"), note.replace("\u2014", "-"), note + note, note.replace("\n4\n", "\n4\nextra\n"),
        note.replace("\u2014 graftline.dev", "\u2014 elsewhere.dev"), "graftline.dev/ledger/" * 10_000,
    ):  # fmt: skip
        with pytest.raises(InputError, match="not a checkpoint"):
            parse_checkpoint(text)


def test_a_grown_ledger_is_consistent_with_what_was_kept(store: Store, kept: TreeHead) -> None:
    release(store, 4, 5, 6)
    found = verdict(store, kept)
    assert (found.status, len(found.chain.entries)) == ("ok", 7)
    assert "checkpoint at entry 4 (kept)" in found.anchors


def test_a_ledger_whose_end_was_cut_off_is_found(store: Store, kept: TreeHead) -> None:
    path_of(store, 4).unlink()
    assert verdict(store).status == "ok", "it agrees with itself"
    found = verdict(store, kept)
    assert found.status == "broken"
    assert problem(found) == "ledger/00000004.json: 3 entries; expected 4 entries, by kept"
    for sequence in (1, 2, 3):
        path_of(store, sequence).unlink()
    assert "00000001.json: 0 entries; expected 4 entries" in problem(verdict(store, kept))


def test_a_ledger_that_was_rewritten_is_found(store: Store, kept: TreeHead) -> None:
    """By somebody with the machine's own key: only the checkpoint shows it."""
    for sequence in (3, 4):
        path_of(store, sequence).unlink()
    release(store, 7, 8, 9)
    assert verdict(store).status == "ok", "it agrees with itself"
    found = verdict(store, kept)
    assert found.status == "broken"
    assert "over its first 4 entries; they were rewritten" in problem(found)


def test_a_ledger_made_anew_by_another_key_is_found(store: Store, kept: TreeHead, tmp_path: Path) -> None:
    own = load_keyring().signer().keyid
    mallory = new_signer(tmp_path)
    assert verdict(store, first_key=own).status == "ok"
    rewrite(store, mallory, lambda facts: [replace(fact, digest="f" * 64) for fact in facts])
    assert verdict(store).status == "unknown", "no key that this machine trusts signed any of it"
    assert "another ledger" in problem(verdict(store, kept))
    assert f"00000001.json: key {mallory.keyid}; expected key {own}" in problem(verdict(store, first_key=own))


def test_the_checkpoint_itself_must_be_signed_by_a_key_that_was_trusted_then(
    store: Store, kept: TreeHead, tmp_path: Path
) -> None:
    mallory = new_signer(tmp_path)
    ledger = Ledger(store)
    with pytest.raises(RefusalError, match="does not take entries"):
        make_checkpoint(ledger, mallory)
    forged = replace(kept, key_hash=bytes.fromhex(mallory.keyid)[:4], signature=mallory.sign(kept.text.encode()))
    for bad in (forged, replace(kept, signature=kept.signature[:-1]), replace(kept, key_hash=forged.key_hash)):
        with pytest.raises(BrokenLedgerError, match="its signature is not one of a key that the ledger trusted then"):
            check_checkpoint(bad, ledger)
    key_event(store, "trust", mallory.public)
    with pytest.raises(BrokenLedgerError, match="its signature is not one"):
        check_checkpoint(forged, Ledger(store))
    later = make_checkpoint(Ledger(store), mallory)
    key_event(store, "retire", mallory.public)
    check_checkpoint(later, Ledger(store))
    check_checkpoint(kept, Ledger(store))


def test_a_checkpoint_of_another_store_does_not_fit(store: Store, kept: TreeHead, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    release(other, 1, 2, 3)
    assert "another ledger" in problem(verdict(other, kept))


def test_the_last_one_seen_here_is_remembered_and_compared(store: Store, kept: TreeHead) -> None:
    assert seen(store.url) is None
    release(store, 4)
    later = make_checkpoint(Ledger(store))
    remember(store.url, later)
    remember(store.url, kept)
    assert seen(store.url) == head_of(Ledger(store)), "an earlier one does not replace it"
    for sequence in (4, 5):
        path_of(store, sequence).unlink()
    found = verdict(store)
    assert found.status == "broken"
    assert "3 entries; expected 5 entries" in problem(found)
    assert str(seen_path(store.url)) in problem(found)
    seen_path(store.url).write_text("x")
    with pytest.raises(InputError, match="not what was seen of a ledger"):
        verdict(store)


def test_a_broken_entry_is_a_problem_with_its_place(store: Store) -> None:
    changed(path_of(store, 3), version=7)
    found = verdict(store)
    assert found.status == "broken"
    assert "00000003.json: its signature is not one of key" in problem(found)


def test_without_anything_from_outside_the_answer_is_unknown(
    store: Store, kept: TreeHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_keyring().signer()
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "an outsider's"))
    assert verdict(store).status == "unknown"
    assert verdict(store, first_key=own.keyid).status == "ok"
    assert verdict(store, kept).status == "ok"
    assert not (tmp_path / "an outsider's").exists(), "verifying makes no key"
    keyring = load_keyring()
    keyring.add_trusted(own.public.pem)
    assert verdict(store).status == "ok"
    revoke(keyring.folder, own.keyid)
    assert verdict(store).status == "unknown", "whoever has a key that was revoked can make a ledger anew"


def test_a_far_number_among_the_entries_is_a_gap_and_not_read_up_to(store: Store) -> None:
    store.put_if_absent("ledger/99999999.json", b"{}")
    assert [key for key, _ in stored_entries(store)][-3:] == [
        "ledger/00000004.json",
        "ledger/99999998.json",
        "ledger/99999999.json",
    ]
    gap, stray = verdict(store).findings
    assert (gap.place, gap.kind) == ("ledger/00000005.json", "missing")
    assert (stray.place, stray.kind) == ("ledger/99999999.json", "unsigned")


def test_a_key_of_this_machine_vouches_for_all_before_its_entry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = new_signer(tmp_path)
    key_event(store, "trust", second.public)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "another machine"))
    load_keyring().add_trusted(second.public.pem)
    assert verdict(store).status == "unknown", "that others trust its key says nothing"
    ledger = Ledger(store)
    ledger.append(lambda _: replace(fact_of(ledger.entries[1]), id="new", version=9), signer=second)
    assert verdict(store).anchors == [f"entry 6 is by key {second.keyid}, which is trusted on this machine"]


def test_an_inclusion_proof_leads_from_the_stored_bytes_to_the_checkpoints_root(store: Store) -> None:
    release(store, 4, 5)
    ledger = Ledger(store)
    kept = make_checkpoint(ledger)
    for version in range(1, 6):
        entry = release_entry(ledger, "digits", version)
        proof = prove_inclusion(ledger, entry)
        assert proof.holds
        assert (proof.root, proof.size, proof.origin) == (kept.root, kept.size, kept.origin)
        assert base64.b64decode(proof.as_dict()["leaf"]) == path_of(store, entry.sequence).read_bytes()
        assert not replace(proof, entry=replace(entry, version=9)).holds
        assert not replace(proof, path=proof.path[1:]).holds
    with pytest.raises(InputError, match="no entry of the release of digits@7"):
        release_entry(read_chain(store), "digits", 7)
