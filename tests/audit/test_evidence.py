"""The evidence file and its verifier: it passes as written, without Graftline, and no changed byte goes unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "exports"))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from made import LOCK, LOCK_DIGEST, RAW, release
from servers import moto_endpoint, moto_url

from graftline.audit.evidence import verifier
from graftline.audit.evidence.annex import POINTS, index
from graftline.audit.evidence.page import page
from graftline.audit.evidence.writing import VERIFIER, Contents, _write_zip, collect, write_evidence
from graftline.canonical import canonical_json
from graftline.cli.evidence import evidence as command
from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import InputError, RefusalError
from graftline.ledger.checkpoint import make_checkpoint
from graftline.ledger.entries import Fact
from graftline.ledger.log import Ledger, key_event
from graftline.releases.catalogue import resolve
from graftline.releases.promotion import rollback
from graftline.releases.publishing import Publication
from graftline.runs import Attempt, End, Start, add_attempt, conclude
from graftline.signing.envelope import seal
from graftline.signing.keyring import load_keyring, rotate
from graftline.signing.keys import PublicKey, Signer
from graftline.store import Store
from graftline.store.directory import DirectoryStore
from graftline.store.opening import open_store

__all__ = ["moto_endpoint", "moto_url"]
SHEET = "# digits: <b>seven</b> digits\n\n| Licence | MIT |\n"
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    sheet = folder / "checkout" / "data" / "digits" / "README.md"
    sheet.parent.mkdir(parents=True)
    sheet.write_text(SHEET)
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    """Two releases and a rollback: of three entries more than the evidence of the first needs at least."""
    opened = open_store(str(place / "store"))
    release(opened, place / "one")
    release(opened, place / "two", salt="2")
    rollback(opened, "digits", 1)
    return opened


def make(store: Store, place: Path, name: str = "evidence.zip", model: str = "digits@1", **options: bool) -> Path:
    signer = load_keyring().signer()
    found = resolve(store, model)
    return write_evidence(store, found, place / name, signer, checkout=place / "checkout", **options).path


@pytest.fixture(scope="module")
def made(store: Store, place: Path) -> Path:
    return make(store, place, with_model=True)


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def problems(path: Path, key: str | None = None) -> list[str]:
    checks, _ = verifier.verify(path, [key] if key else [])
    return [problem for check in checks for problem in check.problems]


def own_key() -> str:
    return load_keyring().signer().keyid


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has `cryptography` and no Graftline."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    import cryptography

    site = Path(str(cryptography.__file__)).parents[1]
    for path in [site / "cryptography", *site.glob("cffi"), *site.glob("_cffi_backend*")]:
        (packages / path.name).symlink_to(path)
    return folder / "bin" / "python"


def run(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_the_verifier_in_the_file_passes_where_graftline_cannot_be_imported(
    python: Path, made: Path, tmp_path: Path
) -> None:
    assert run(python, "-c", "import graftline").returncode == 1
    verifier = tmp_path / "verify.py"
    verifier.write_bytes(members_of(made)["verify.py"])
    done = run(python, verifier, made)
    assert (done.returncode, done.stderr) == (0, "")
    assert "VERDICT: the evidence of digits@1 holds together" in done.stdout
    assert own_key() in done.stdout and "DIFFERS" not in done.stdout
    done = run(python, verifier, made, "--key", own_key(), "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["holds"], answer["keys"]["first"]) == (0, True, own_key())
    assert all(check["count"] > 0 for check in answer["checks"])
    changed = members_of(made)
    changed["release/README.md"] += b" "
    done = run(python, verifier, write(tmp_path / "changed.zip", changed))
    assert done.returncode == 1 and "VERDICT: the evidence does not hold." in done.stdout
    assert "release/README.md: sha256" in done.stdout


def test_it_also_verifies_the_folder_that_it_was_unpacked_into(python: Path, made: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path)
    assert run(python, tmp_path / "verify.py").returncode == 0
    (tmp_path / "records" / "more.json").write_text("{}")
    done = run(python, tmp_path / "verify.py")
    assert done.returncode == 1 and "'records/more.json': not in the list" in done.stdout


def test_what_cannot_be_checked_has_its_own_exit_code(python: Path, made: Path, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    for arguments, line in (
        ([tmp_path / "text.zip"], "not a readable zip file"),
        ([tmp_path / "absent.zip"], "No such file"),
        ([tmp_path], "no evidence of a release"),
        ([made, "--key", "abc"], "expected 64 hex digits"),
    ):
        done = run(python, VERIFIER, *arguments)
        assert done.returncode == 2 and line in done.stderr


def test_without_the_package_that_it_needs_the_verifier_says_so_in_a_line() -> None:
    command = [sys.executable, "-S", "-I", VERIFIER, "evidence.zip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "No module named 'cryptography': pip install cryptography\n"


def test_a_flipped_byte_in_any_member_is_found(made: Path, tmp_path: Path) -> None:
    members = members_of(made)
    assert len(members) > 40
    for name, data in members.items():
        for place in {0, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[place] ^= 1
            path = write(tmp_path / "changed.zip", members | {name: bytes(changed)})
            assert problems(path), f"byte {place} of {name} was changed and nothing was found"


def test_a_member_that_is_missing_renamed_or_there_twice_is_found(made: Path, tmp_path: Path) -> None:
    members = members_of(made)
    for name in members:
        rest = {other: data for other, data in members.items() if other != name}
        path = write(tmp_path / "changed.zip", rest)
        if name == "files.json":
            with pytest.raises(verifier.UnusableError, match=r"files\.json is missing"):
                problems(path)
        else:
            assert problems(path), f"{name} is missing and nothing was found"
    path = write(tmp_path / "more.zip", members | {"records/../x": b""})
    assert problems(path) == ["'records/../x': not in the list", *problems(path)[1:]]
    path = write(tmp_path / "twice.zip", members)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("index.json", members["index.json"])
    assert "index.json: there more than once" in problems(path)


def test_any_changed_byte_of_the_zip_file_itself_is_found_or_changes_no_member(made: Path, tmp_path: Path) -> None:
    data, members = made.read_bytes(), members_of(made)
    path = tmp_path / "changed.zip"
    for place in range(0, len(data), max(1, len(data) // 60)):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            found = bool(problems(path))
        except verifier.UnusableError:
            found = True
        assert found or members_of(path) == members


def relisted(members: Members, signer: Signer) -> Members:
    """Return the members with a list that fits them, signed: what a forger does who has a key."""
    value = json.loads(members["files.json"])
    kept = {name: data for name, data in members.items() if name not in ("files.json", "files.dsse.json")}
    value["files"] = [
        {"path": name, "size": len(data), "sha256": sha256_bytes(data)} for name, data in sorted(kept.items())
    ]
    data = canonical_json(value)
    return kept | {"files.json": data, "files.dsse.json": seal(data, "application/vnd.graftline.evidence+json", signer)}


@pytest.fixture
def forger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Signer]:
    """Another's key."""
    with monkeypatch.context() as patch:
        patch.setenv("GRAFTLINE_KEYS", str(tmp_path / "forger"))
        yield load_keyring().signer()


def named(members: Members, pattern: str, number: int = 0) -> str:
    return sorted(name for name in members if name.startswith(pattern))[number]


def replace_text(pattern: str, old: bytes, new: bytes) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        name = next(name for name in sorted(members) if name.startswith(pattern) and old in members[name])
        return members | {name: members[name].replace(old, new)}

    return change


def swap_entries(members: Members) -> Members:
    one, two = named(members, "ledger/entries/", 1), named(members, "ledger/entries/", 2)
    return members | {one: members[two], two: members[one]}


def without(pattern: str, number: int = 0) -> Callable[[Members], Members]:
    return lambda members: {k: v for k, v in members.items() if k != named(members, pattern, number)}


CHANGES: list[tuple[str, Callable[[Members], Members], str]] = [
    ("a metric of the manifest", replace_text("release/manifest", b"0.97", b"0.99"), "no entry of the ledger released"),
    ("a parameter of a record", replace_text("records/", b'"epochs":12', b'"epochs":13'), "its sha256 is"),
    ("an entry's actor", replace_text("ledger/entries/", b'"actor":"', b'"actor":"x'), "its signature is not one"),
    ("the order of entries", swap_entries, "says that it is entry"),
    ("a missing entry", without("ledger/entries/", 1), "a proof without the entry"),
    ("a missing record", without("records/"), "of no record here"),
    ("a missing envelope", without("signatures/"), "no good signature"),
    ("a missing proof", replace_text("ledger/proofs", b'"index":1', b'"index":9'), "no proof"),
    ("another size of the ledger", replace_text("ledger/checkpoint", b"\n6\n", b"\n7\n"), "signed by none of the keys"),
    ("a file of the release", replace_text("release/README", b"Reads", b"Heeds"), "not as the manifest lists it"),
    ("a lock", replace_text("locks/", b"2.1.0", b"2.1.1"), "not a lock that a record names"),
    ("the weights", replace_text("release/model.safetensors", b"model", b"nodel"), "not as the manifest lists it"),
    ("an exported envelope", replace_text("exports/slsa", b'"sig":"M', b'"sig":"N'), "not in signatures/"),
]


@pytest.mark.parametrize(("what", "change", "line"), CHANGES, ids=[what for what, _, _ in CHANGES])
def test_a_change_is_found_even_if_a_trusted_key_signed_the_list_anew(
    made: Path, tmp_path: Path, what: str, change: Callable[[Members], Members], line: str
) -> None:
    members = relisted(change(members_of(made)), load_keyring().signer())
    found = problems(write(tmp_path / "changed.zip", members))
    assert any(line in problem for problem in found), found


@pytest.mark.parametrize("folder", [True, False])
def test_a_lone_raw_file_is_held_against_the_digest_that_the_record_names(made: Path, folder: bool) -> None:
    """Raw data of one file has that file's digest, or that of the folder that holds nothing else."""
    evidence = verifier.verify(made)[1]
    (record,) = [r for r in evidence.records.values() if raw_of(r)]
    raw, one = raw_of(record)[0], FileDigest("part-1.parquet", 5, "a" * 64)
    raw["annotations"]["files"] = [one.as_dict()]
    raw["digest"]["sha256"] = digest_files([one]) if folder else one.sha256
    assert list(verifier.check_chain(evidence)) == []
    raw["annotations"]["files"][0]["sha256"] = "b" * 64
    assert [line.partition(": ")[2] for line in verifier.check_chain(evidence)] == [
        "its list of raw files does not give their digest"
    ]


def raw_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    dependencies = record["predicate"]["buildDefinition"]["resolvedDependencies"]
    return [one for one in dependencies if one["name"] == "raw"]


def test_a_list_signed_by_another_key_is_found(made: Path, tmp_path: Path, forger: Signer) -> None:
    members = relisted(members_of(made), forger)
    found = problems(write(tmp_path / "forged.zip", members))
    assert found == [f"files.dsse.json: not signed by a key that the ledger names ({forger.keyid})"]


def test_a_record_signed_by_another_key_is_found(made: Path, tmp_path: Path, forger: Signer) -> None:
    members = members_of(made)
    name = named(members, "signatures/")
    record = members[f"records/{name.split('/')[1]}.json"]
    members[name] = seal(record, "application/vnd.in-toto+json", forger)
    members = relisted(members, load_keyring().signer())
    found = problems(write(tmp_path / "forged.zip", members))
    assert any("not signed by a key that the ledger names" in problem for problem in found)


def test_evidence_made_anew_with_another_key_holds_only_until_the_key_is_given(
    made: Path, tmp_path: Path, forger: Signer
) -> None:
    other = open_store(str(tmp_path / "store"))
    release(other, tmp_path / "run")
    forged = make(other, tmp_path, "forged.zip")
    assert problems(forged) == []
    assert verifier.main([str(forged), "--key", forger.keyid]) == 0
    known = json.loads(members_of(made)["index.json"])["ledger"]["first_key"]
    assert problems(forged, known) == [
        f"{known} neither began the ledger nor signed the checkpoint; {forger.keyid} did"
    ]
    assert verifier.main([str(forged), "--key", known]) == 1


def test_the_evidence_of_a_clusters_release_tells_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "store"))
    monkeypatch.setattr("made.Publication", lambda _: Publication(f"5a6bdf78-41d3-{'a' * 16}"))
    release(store, tmp_path / "run")
    assert "run.json" not in members_of(make(store, tmp_path)), "nothing is known of it"
    start = Start("5a6bdf78-41d3", "k" * 64, "digits", reason={"kind": "person", "who": "ada"})
    moment = "2026-11-28T23:10:00Z"
    add_attempt(store, Attempt(start.run, "publish", 0, "", moment, moment, pod="publish-pod"))
    conclude(store, End(start, "SUCCEEDED", ended=moment))
    path = make(store, tmp_path)
    told = json.loads(members_of(path)["run.json"])
    assert (told["start"]["reason"]["who"], told["attempts"][0]["pod"]) == ("ada", "publish-pod")
    assert problems(path) == []


class ReadOnly(DirectoryStore):
    """A store for someone who may only read it."""

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        raise AssertionError(f"{key} was written")

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        raise AssertionError(f"{key} was replaced")

    def delete(self, key: str) -> None:
        raise AssertionError(f"{key} was deleted")


@pytest.fixture
def audited(store: Store, place: Path, tmp_path: Path, forger: Signer) -> Path:
    """Evidence by an auditor who may only read, and whose key the ledger does not know."""
    only = ReadOnly(Path(store.url))
    before = {path: path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()}
    path = make(only, tmp_path)
    assert before == {path: path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()}
    return path


def test_an_auditor_who_may_only_read_makes_evidence_that_says_so(
    audited: Path, made: Path, forger: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    """K37: nothing is written to the store, and whose word the list is must be known from elsewhere."""
    first = json.loads(members_of(made)["index.json"])["ledger"]["first_key"]
    index, pages = (members_of(audited)[name].decode() for name in ("index.json", "index.html"))
    assert json.loads(index)["ledger"]["knows_checkpoint_key"] is False
    assert "which made this file and which the ledger does not know" in pages
    assert problems(audited) == [] and verifier.main([str(audited)]) == 0
    said = capsys.readouterr().out
    assert f"the checkpoint is by key   {forger.keyid}, which the ledger does not know" in said
    assert verifier.main([str(audited), "--key", first, "--key", forger.keyid]) == 0
    assert problems(audited, forger.keyid) == []
    assert problems(audited, first) == [
        f"key {forger.keyid} made this file, and the ledger does not know it: find out whose it is, and give it too"
    ]


def test_the_command_says_that_the_ledger_does_not_know_its_key(
    store: Store, tmp_path: Path, forger: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    command("digits@1", tmp_path / "evidence.zip", checkpoint=None, store=store.url)
    assert f"{forger.keyid}, which the ledger does not know" in capsys.readouterr().out
    command("digits@1", tmp_path / "evidence.zip", checkpoint=None, store=store.url, as_json=True)
    assert json.loads(capsys.readouterr().out)["key_known"] is False


def test_a_maker_vouches_for_the_list_and_for_nothing_that_the_ledger_does(
    audited: Path, tmp_path: Path, forger: Signer
) -> None:
    members = members_of(audited)
    for change, line in (
        (replace_text("release/manifest", b"0.97", b"0.99"), "no entry of the ledger released"),
        (replace_text("ledger/entries/", b'"actor":"', b'"actor":"x'), "its signature is not one"),
    ):
        found = problems(write(tmp_path / "changed.zip", relisted(change(members), forger)))
        assert any(line in problem for problem in found), found
    name = named(members, "signatures/")
    sealed = seal(members[f"records/{name.split('/')[1]}.json"], "application/vnd.in-toto+json", forger)
    found = problems(write(tmp_path / "forged.zip", relisted(members | {name: sealed}, forger)))
    assert any("not signed by a key that the ledger names" in problem for problem in found)


def test_a_key_that_the_ledger_trusts_no_more_makes_no_evidence_even_as_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "run")
    first = load_keyring().signer()
    _, new = rotate(tmp_path / "keys")
    key_event(store, "trust", new, signer=first)
    path = make(store, tmp_path)
    key_event(store, "retire", first.public, signer=load_keyring().signer())
    with pytest.raises(RefusalError, match="retired"):
        write_evidence(store, resolve(store, "digits"), tmp_path / "no.zip", first, checkout=tmp_path)
    members = members_of(make(store, tmp_path)) | {"maker.pem": first.public.pem.encode()}
    found = problems(write(path, relisted(members, first)))
    assert f"maker.pem: key {first.keyid}, which the ledger knows, and which is retired" in found


def test_the_same_release_and_ledger_give_the_same_bytes(store: Store, place: Path, made: Path, tmp_path: Path) -> None:
    again = make(store, place, "again.zip", with_model=True)
    assert again.read_bytes() == made.read_bytes()
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


def test_records_proofs_card_sheet_metrics_lock_and_exports_are_inside(made: Path, store: Store) -> None:
    members = members_of(made)
    assert members["datasheet.md"].decode() == SHEET
    assert members[f"locks/{LOCK_DIGEST}.txt"] == LOCK
    assert {"name": "accuracy", "value": 0.97, "low": 0.95, "high": 0.98} in json.loads(members["metrics.json"])
    assert members["release/model.safetensors"] == b"model"
    assert members["verify.py"] == VERIFIER.read_bytes()
    count = {kind: sum(name.startswith(kind) for name in members) for kind in ("records/", "signatures/", "keys/")}
    assert count == {"records/": 4, "signatures/": 4, "keys/": 1}
    assert RAW[0].sha256.encode() in b"".join(data for name, data in members.items() if name.startswith("records/"))
    assert len([name for name in members if name.startswith("ledger/entries/")]) == 6
    assert {"release/model.sig", "release/README.md", "release/reliability.png", "ledger/checkpoint.txt"} <= set(
        members
    )
    exports = {name for name in members if name.startswith("exports/")}
    assert exports == {
        "exports/slsa.intoto.jsonl",
        "exports/mlbom.cdx.json",
        "exports/prov.json",
        "exports/croissant.json",
    }
    value = json.loads(members["index.json"])
    assert "as it stood in the checkout" in value["datasheet"]


def test_without_the_model_its_bytes_are_there_by_digest_and_can_be_compared(
    store: Store, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(store, place, "small.zip")
    members = members_of(path)
    assert "release/model.safetensors" not in members
    (listed,) = json.loads(members["index.json"])["by_digest_only"]
    assert (listed["path"], listed["sha256"]) == ("model.safetensors", sha256_bytes(b"model"))
    folder = Path(store.url) / "releases" / "digits" / "1"
    assert verifier.main([str(path), "--release", str(folder)]) == 0
    assert verifier.main([str(path), "--release", str(tmp_path)]) == 1
    assert "model.safetensors: missing" in capsys.readouterr().out


def test_the_receipt_of_an_erasure_is_held_against_the_ledger(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "run")
    receipt = canonical_json({"erased": 3})
    store.put_if_absent("erasures/e1.json", receipt)
    store.put_if_absent("erasures/other.json", b"{}")
    Ledger(store).append(lambda _: Fact("erase", "digits", 0, sha256_bytes(receipt), "e1"))
    members = members_of(make(store, tmp_path))
    assert [name for name in members if name.startswith("erasures/")] == ["erasures/e1.json"]
    signed = relisted(members | {"erasures/e1.json": receipt + b" "}, load_keyring().signer())
    found = problems(write(tmp_path / "changed.zip", signed))
    assert found == ["erasures/e1.json: not a receipt that the ledger names"]


def test_a_kept_checkpoint_shows_that_the_ledger_only_grew(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "one")
    kept = make_checkpoint(Ledger(store))
    (tmp_path / "kept.txt").write_text(kept.note)
    release(store, tmp_path / "two", salt="2")
    now = make_checkpoint(Ledger(store)).line
    plain_file, path = make(store, tmp_path, "plain.zip"), tmp_path / "evidence.zip"
    command("digits@1", path, checkpoint=[kept.line], store=store.url)
    assert kept.size < Ledger(store).tree.size
    for given in (kept.line, str(tmp_path / "kept.txt"), now):
        assert verifier.main([str(path), "--checkpoint", given]) == 0
    other = open_store(str(tmp_path / "other"))
    release(other, tmp_path / "three")
    rewritten = replace(kept, root=bytes(32))
    cases = {
        "no proof from 3 entries is in this file": (plain_file, kept.line),
        "it is of another ledger": (path, make_checkpoint(Ledger(other)).line),
        "it is signed by none of the keys": (path, rewritten.line),
    }
    for line, (file, given) in cases.items():
        assert line in checked(file, given)
    signature = load_keyring().signer().sign(rewritten.text.encode())
    assert "the first 3 entries are not what they were" in checked(path, replace(rewritten, signature=signature).line)
    with pytest.raises(InputError, match="they were rewritten"):
        command("digits@1", path, checkpoint=[rewritten.line], store=store.url)


def checked(path: Path, checkpoint: str) -> str:
    checks, _ = verifier.verify(path, checkpoint=checkpoint)
    return "; ".join(problem for check in checks for problem in check.problems)


def test_a_rotated_key_still_vouches_for_what_it_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "run")
    first = load_keyring().signer()
    _, new = rotate(tmp_path / "keys")
    key_event(store, "trust", new, signer=first)
    second = load_keyring().signer()
    assert second.keyid == new.keyid != first.keyid
    key_event(store, "retire", PublicKey.from_pem(first.public.pem), signer=second)
    path = make(store, tmp_path)
    assert problems(path, first.keyid) == problems(path, second.keyid) == []
    members = members_of(path)
    assert {f"keys/{first.keyid}.pem", f"keys/{second.keyid}.pem"} <= set(members)
    key_event(store, "revoke", PublicKey.from_pem(first.public.pem), signer=second)
    with pytest.raises(InputError, match="no signature of the record of dataset by a key that the ledger trusts"):
        make(store, tmp_path)


def test_a_release_that_the_ledger_does_not_know_gets_no_evidence(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "run")
    found = resolve(store, "digits")
    manifest = tmp_path / "store/releases/digits/1/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"0.97", b"0.99"))
    with pytest.raises(InputError, match="the store was changed"):
        collect(store, found, load_keyring().signer(), checkout=tmp_path)
    with pytest.raises(InputError, match=r"manifest.json: sha256 .* expected"):
        collect(store, resolve(store, "digits"), load_keyring().signer(), checkout=tmp_path)


def test_it_is_the_same_from_an_object_store(moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    store = open_store(moto_url)
    release(store, tmp_path / "run")
    path = make(store, tmp_path, with_model=True)
    assert problems(path, own_key()) == []
    assert members_of(path)["release/model.safetensors"] == b"model"


def test_every_point_of_annex_iv_is_there_covered_or_said_not_to_be(made: Path) -> None:
    value = json.loads(members_of(made)["index.json"])
    points = {point["point"]: point for point in value["annex_iv"]}
    letters = {"1": "abcdefgh", "2": "abcdefgh"}
    expected = [f"{n}({c})" for n in "12" for c in letters[n]] + list("3456789")
    assert list(points) == expected == [point.number for point in POINTS]
    for point in points.values():
        assert (point["coverage"] == "not covered") == (not point["files"])
        assert point["says"] or point["open"]
    assert points["2(d)"]["coverage"] == "covered" and "datasheet.md" in points["2(d)"]["files"]
    assert points["1(a)"]["coverage"] == "in part" and points["1(a)"]["open"] == "Who the provider is."
    assert points["5"]["coverage"] == points["8"]["coverage"] == "not covered"
    assert all(point["coverage"] == "not covered" for point in index([]))
    bare = {point["point"]: point for point in index(["records/1.json", "release/schema.json"])}
    assert bare["2(d)"]["coverage"] == "in part" and "datasheet.md" in bare["2(d)"]["open"]
    assert "data sheet" not in bare["2(d)"]["says"], "nothing is said of a file that is not there"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_page_is_whole_in_itself_and_values_in_it_are_no_markup(made: Path) -> None:
    members = members_of(made)
    value = json.loads(members["index.json"])
    hostile = "<script>alert(1)</script>\"'&"
    value["release"] = dict.fromkeys(value["release"], hostile)
    value["metrics"] = [{"name": hostile, "value": 1.0}]
    value["datasheet"] = hostile
    value["files"].append({"path": hostile, "size": 1, "sha256": hostile})
    value["annex_iv"][0]["files"] = [f"javascript:{hostile}"]
    for made_page, among in ((members["index.html"], members), (page(value, {hostile: b"x"}), None)):
        tags = Tags()
        tags.feed(made_page.decode())
        assert not {"script", "iframe", "object", "link"} & set(tags.tags)
        assert "default-src 'none'" in made_page.decode()
        assert not [link for link in tags.links if "javascript:" in link]
        if among is not None:
            assert {link for link in tags.links if not link.startswith("data:image/png")} <= set(among)


def test_the_command_prints_the_fingerprints_and_refuses_a_folder(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evidence.zip"
    command("digits@champion", out, store=store.url)
    said = capsys.readouterr().out
    assert own_key() in said and sha256_bytes(out.read_bytes()) in said
    assert f"python verify.py evidence.zip --key {own_key()}" in said
    command("digits@1", out, as_json=True, store=store.url)
    assert json.loads(capsys.readouterr().out)["verifier"] == sha256_bytes(VERIFIER.read_bytes())
    with pytest.raises(InputError, match="is a folder"):
        command("digits@1", tmp_path, store=store.url)


def test_a_write_that_fails_leaves_nothing_behind(
    store: Store, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence: Contents = collect(
        store, resolve(store, "digits@1"), load_keyring().signer(), checkout=place, with_model=True
    )
    weights = Path(store.url) / "releases/digits/1/model.safetensors"
    before = weights.read_bytes()
    os.chmod(weights, 0o644)
    weights.write_bytes(b"other")
    try:
        with pytest.raises(InputError, match=r"model\.safetensors: sha256 \w{64}; expected \w{64}"):
            _write_zip(tmp_path / "aside", evidence, lambda line: None)
        with pytest.raises(InputError):
            make(store, tmp_path, with_model=True)
        assert [path.name for path in tmp_path.iterdir()] == ["aside"]
    finally:
        weights.write_bytes(before)
