"""Each release is signed so that the public `model_signing` command verifies it, with no ledger or store of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import forked
import pytest

from graftline.canonical import canonical_json
from graftline.digests import FileDigest, sha256_bytes
from graftline.errors import InputError, RefusalError
from graftline.ledger.log import key_event, read_chain
from graftline.releases.catalogue import list_releases, resolve
from graftline.releases.fetching import fetch
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.signing import keyring as stored
from graftline.signing.envelope import STATEMENT_TYPE, open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import make_private, read_signer
from graftline.signing.model import IGNORED, MODEL_SIGNATURE, model_signers, sign_model
from graftline.store import Store
from graftline.store.opening import open_store

RECORD = b'{"of":"the model"}'


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def draft(tmp_path: Path) -> ReleaseDraft:
    files = tmp_path / "files"
    (files / "tokenizer").mkdir(parents=True)
    (files / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (files / "tokenizer.json").write_text("{}")
    (files / "tokenizer" / "merges.txt").write_text("a b")  # sorts by folder, not by character
    by_name = {p.relative_to(files).as_posix(): p for p in files.rglob("*") if p.is_file()}
    envelope = seal(RECORD, STATEMENT_TYPE, load_keyring().signer())
    return ReleaseDraft("digits", by_name, {"model": RECORD}, {"accuracy": 0.9}, envelopes={"model": envelope})


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


def model_signing(folder: Path, pem: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as components/publish/README.md shows it."""
    (tmp_path / "key.pem").write_text(pem)
    command = [
        sys.executable, "-m", "model_signing", "verify", "key", str(folder),
        "--signature", str(folder / MODEL_SIGNATURE), "--public_key", str(tmp_path / "key.pem"),
    ]  # fmt: skip
    return forked.run(command, text=True)


def test_the_public_command_verifies_a_release_and_finds_what_was_changed(tmp_path: Path, draft: ReleaseDraft) -> None:
    release = publish(open_store(str(tmp_path / "store")), draft, Publication("one")).release
    folder, public = Path(release.path), load_keyring().signer().public
    done = model_signing(folder, public.pem, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr
    other = model_signing(folder, make_private()[1].pem, tmp_path)
    assert other.returncode != 0
    assert "Key mismatch" in other.stdout + other.stderr
    for name in ("model.safetensors", "records/model.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    changed = model_signing(folder, public.pem, tmp_path)
    assert changed.returncode != 0
    for name in ("model.safetensors", "records/model.json"):
        assert re.search(rf"Hash mismatch for \W*{name}", changed.stderr)


def test_a_release_that_was_fetched_from_a_store_carries_its_signature(
    store: Store, draft: ReleaseDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    release = publish(store, draft, Publication("one")).release
    folder, signer = fetch(store, release), load_keyring().signer()
    files = [
        FileDigest(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_bytes(path.read_bytes()))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in IGNORED
    ]
    data = (folder / MODEL_SIGNATURE).read_bytes()
    assert model_signers(data, "digits@1", files, {signer.keyid: signer.public}) == [signer.keyid]
    assert not model_signers(data, "digits@1", files, {})
    with pytest.raises(InputError, match="it signs other files; expected the files of digits@1"):
        model_signers(data, "digits@1", files[1:], {signer.keyid: signer.public})
    assert store.get(f"keys/{signer.keyid}.pem").data.decode() == signer.public.pem
    envelope = store.get(f"signatures/{sha256_bytes(RECORD)}/{signer.keyid}.json").data
    assert open_envelope(envelope).payload == RECORD


def test_a_changed_signature_of_a_release_is_found_when_it_is_fetched(tmp_path: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(tmp_path / "store"))
    release = publish(store, draft, Publication("one")).release
    path = Path(release.path, MODEL_SIGNATURE)
    path.write_bytes(sign_model("digits@1", draft.listing, load_keyring().signer()))
    with pytest.raises(InputError, match=r"model\.sig: sha256 .* by the manifest"):
        fetch(store, release)


def test_who_signs_is_no_part_of_a_releases_content(tmp_path: Path, draft: ReleaseDraft, keys: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    one = publish(store, draft, Publication("one")).release
    stored.rotate(keys)
    two = publish(store, draft, Publication("two")).release
    assert one.digest == two.digest
    assert one.manifest != two.manifest


def test_no_byte_of_a_model_signature_can_change(draft: ReleaseDraft) -> None:
    signer = load_keyring().signer()
    data = sign_model("digits@1", draft.listing, signer)
    assert model_signers(data, "digits@1", draft.listing, {signer.keyid: signer.public})
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            found = model_signers(changed, "digits@1", draft.listing, {signer.keyid: signer.public})
        except InputError:
            continue
        assert not found, f"byte {place}"


def interrupted(store: Store, draft: ReleaseDraft) -> None:
    """Leave what a try leaves that was killed before its manifest."""
    publish(store, draft, Publication("one"))
    folder = Path(store.url)
    (folder / "releases/digits/1/manifest.json").unlink()
    for path in [*(folder / "ledger").iterdir(), *(folder / "aliases/digits").iterdir()]:
        path.unlink()


def test_a_retry_keeps_the_signatures_of_the_try_before(tmp_path: Path, draft: ReleaseDraft, keys: Path) -> None:
    """A key management service signs in other bytes each time; here another key does."""
    store = open_store(str(tmp_path / "store"))
    interrupted(store, draft)
    before = store.get("releases/digits/1/model.sig").data
    stored.rotate(keys)
    assert publish(store, draft, Publication("one")).promoted
    assert store.get("releases/digits/1/model.sig").data == before
    fetch(store, resolve(store, "digits"))


@pytest.mark.parametrize("what", ["releases/digits/1/model.sig", "signatures"])
def test_a_retry_refuses_a_signature_that_is_not_sound(tmp_path: Path, draft: ReleaseDraft, what: str) -> None:
    store = open_store(str(tmp_path / "store"))
    interrupted(store, draft)
    (tmp_path / "another.key").write_bytes(make_private()[0])
    another = read_signer(tmp_path / "another.key")
    path = Path(store.url, what)
    if what == "signatures":
        [path] = path.rglob("*.json")
        path.write_bytes(seal(RECORD, STATEMENT_TYPE, another))
    else:
        path.write_bytes(sign_model("digits@1", draft.listing + draft.record_listing(), another))
    with pytest.raises(InputError, match=r"not signed by a key that is trusted here|which is not known here"):
        publish(store, draft, Publication("one"))
    assert not list_releases(store)


def test_records_without_a_trusted_signature_take_no_version(tmp_path: Path, draft: ReleaseDraft) -> None:
    (tmp_path / "another.key").write_bytes(make_private()[0])
    forged = seal(RECORD, STATEMENT_TYPE, read_signer(tmp_path / "another.key"))
    theirs = ReleaseDraft("digits", draft.files, draft.records, envelopes={"model": forged})
    with pytest.raises(InputError, match=r"the envelope of model: signed by key .* which is not known here"):
        publish(open_store(str(tmp_path / "store")), theirs, Publication("one"))
    assert not (tmp_path / "store").exists()


def revoked_by_another_machine(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Release from a machine of its own, which revokes this one's key and then trusts a new one; return the first."""
    ours = load_keyring().signer()
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "admin"))
    admin = load_keyring().signer()
    key_event(store, "trust", admin.public, signer=ours)
    key_event(store, "revoke", ours.public)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "third"))
    third = load_keyring()
    third.add_trusted(ours.public.pem)
    key_event(store, "trust", third.signer().public, signer=admin)
    return ours.keyid


def test_a_record_by_a_key_that_the_ledger_revoked_is_not_published(
    store: Store, draft: ReleaseDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that publishes trusts that key still: nobody told it."""
    publish(store, draft, Publication("one"))
    revoked = revoked_by_another_machine(store, monkeypatch, tmp_path)
    line = rf"of model: signed by key {revoked}, which was revoked by ledger/00000005.json; .*run the stage"
    with pytest.raises(InputError, match=line):
        publish(store, draft, Publication("two"))
    assert not store.list("releases/digits/2/")
    again = replace(draft, envelopes={"model": seal(RECORD, STATEMENT_TYPE, load_keyring().signer())})
    assert publish(store, again, Publication("two")).release.version == 2


def test_a_model_signature_by_a_key_that_the_ledger_revoked_is_not_continued(
    store: Store, draft: ReleaseDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, draft, Publication("one"))
    revoked_by_another_machine(store, monkeypatch, tmp_path)
    unsigned = replace(draft, envelopes={})
    with pytest.raises(InputError, match=r"model.sig: not signed by a key that is trusted here"):
        publish(store, unsigned, Publication("one"))


def test_the_old_key_brings_the_new_one_into_the_ledger_of_each_store(
    store: Store, draft: ReleaseDraft, keys: Path
) -> None:
    publish(store, draft, Publication("one"))
    old = load_keyring().signer().keyid
    _, new = stored.rotate(keys)
    publish(store, draft, Publication("two"))
    entries = read_chain(store).entries
    changes = [(e.detail["action"], e.digest, e.key) for e in entries if e.event == "key"]
    assert changes == [("trust", old, old), ("trust", new.keyid, old), ("retire", old, new.keyid)]
    assert {entry.key for entry in entries if entry.version == 2} == {new.keyid}


def test_a_machine_that_the_ledger_does_not_know_takes_no_version(
    tmp_path: Path, draft: ReleaseDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))
    publish(store, draft, Publication("one"))
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "stranger"))
    unsigned = ReleaseDraft("digits", draft.files, draft.records)
    with pytest.raises(RefusalError, match="its ledger does not take entries by key"):
        publish(store, unsigned, Publication("two"))
    assert not [key for key in store.list("releases/") if key.startswith("releases/digits/2")]


def test_the_statement_has_one_form(draft: ReleaseDraft) -> None:
    value = json.loads(sign_model("digits@1", draft.listing, load_keyring().signer()))
    assert value["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    payload = open_envelope(canonical_json(value["dsseEnvelope"])).payload
    resources = [resource["name"] for resource in json.loads(payload)["predicate"]["resources"]]
    assert resources == ["model.safetensors", "tokenizer/merges.txt", "tokenizer.json"]
