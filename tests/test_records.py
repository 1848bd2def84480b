"""Records: what is not one, or not signed by a trusted key, is refused in one line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftline.canonical import canonical_json
from graftline.component import Component, Context, main
from graftline.digests import ENVELOPE, EXECUTION, RECORD, digest_files, digest_path, sha256_bytes
from graftline.errors import InputError
from graftline.records.folder import Draft, check_signature, read_record, verify, write_execution, write_record
from graftline.records.model import Dependency, Record
from graftline.signing import keyring as stored
from graftline.signing.envelope import STATEMENT_TYPE, open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import Signer, make_private, read_signer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "content").write_text("content")
    write_record(
        tmp_path, Draft("pretrain", "digits", "trunk", dependencies=[Dependency("dataset", "0" * 64, "1" * 64)])
    )
    return tmp_path


def test_a_record_that_was_written_reads_back(folder: Path) -> None:
    record = verify(folder)
    assert (record.component, record.task, record.name) == ("pretrain", "digits", "trunk")
    assert record.inputs == [Dependency("dataset", "0" * 64, "1" * 64)]


@pytest.mark.parametrize(
    "dependencies",
    [["x"], [{}], [{"name": "a"}], [{"name": 1, "digest": {}}], [{"name": "a", "digest": "x"}],
     [{"name": "a", "digest": {"sha256": 1}}], [{"name": "a", "digest": {}, "annotations": []}], "x", None],
)  # fmt: skip
def test_malformed_dependencies_are_refused(folder: Path, dependencies: Any) -> None:
    statement = json.loads((folder / RECORD).read_bytes())
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] = dependencies
    (folder / RECORD).write_bytes(canonical_json(statement))
    with pytest.raises(InputError, match="not a record"):
        read_record(folder)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("buildDefinition/externalParameters/parameters", [], "a list where a mapping is expected"),
        ("buildDefinition/externalParameters/task", 7, "a int where a string is expected"),
        ("buildDefinition/resolvedDependencies/0/annotations/record", "../../aliases/x", "is no sha256"),
        ("buildDefinition/resolvedDependencies/0/digest/sha256", "0" * 63, "is no sha256"),
        ("runDetails/byproducts/0/annotations", "x", "a str where a mapping is expected"),
        ("runDetails/byproducts/2/annotations/files/0/size", "7", "a str where a size is expected"),
    ],
)
def test_each_value_of_a_record_has_its_type(folder: Path, place: str, value: Any, said: str) -> None:
    """What is read may be anybody's; a record's digest becomes a key of the store."""
    statement = json.loads((folder / RECORD).read_bytes())
    *path, last = (int(name) if name.isdecimal() else name for name in place.split("/"))
    at = statement["predicate"]
    for name in path:
        at = at[name]
    at[last] = value
    (folder / RECORD).write_bytes(canonical_json(statement))
    with pytest.raises(InputError, match=said):
        read_record(folder)


def test_the_code_is_what_ran_when_the_draft_was_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_COMMIT", "a" * 40)
    draft = Draft("pretrain", "digits", "trunk")
    monkeypatch.setenv("GRAFTLINE_COMMIT", "b" * 40)  # somebody commits while it trains
    record = write_record(folder, draft)
    assert record.commit == "a" * 40


def test_the_envelope_signs_exactly_the_records_bytes_and_is_no_part_of_identity(folder: Path) -> None:
    envelope = open_envelope((folder / ENVELOPE).read_bytes())
    assert (envelope.payload, envelope.payload_type) == ((folder / RECORD).read_bytes(), STATEMENT_TYPE)
    assert check_signature(folder) == [load_keyring().signer().keyid]
    before = verify(folder)
    (folder / RECORD).unlink()
    (folder / ENVELOPE).unlink()
    bare = digest_path(folder)
    draft = Draft("pretrain", "digits", "trunk", dependencies=[Dependency("dataset", "0" * 64, "1" * 64)])
    again = write_record(folder, draft, another_signer(folder.parent))
    write_execution(folder, {"record": again.sha256})
    assert (again.sha256, again.content) == (before.sha256, bare), "whoever signs it, it is the same record"
    assert digest_path(folder) == bare
    assert (folder / EXECUTION).exists()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Record]:
    """Make the same output at a commit; its record is the first one's where that is kept."""
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))

    def make(commit: str, accuracy: float = 0.5, signer: Signer | None = None) -> Record:
        out = tmp_path / f"trunk at {commit} {accuracy}"
        out.mkdir()
        code = [{"name": "code", "digest": {"gitCommit": commit}}]
        draft = Draft("pretrain", "digits", "trunk", metrics={"accuracy": accuracy}, code=code)
        record = write_record(out, draft, signer, tmp_path / "before")
        if signer is None:
            assert verify(out) == record
        return record

    monkeypatch.setenv("GRAFTLINE_COMMIT", "f" * 40)  # no repository to ask
    return make


A, B = "a" * 40, "b" * 40


def test_what_is_made_again_keeps_the_record_of_the_first(made: Callable[..., Record]) -> None:
    assert made(A).commit == made(B).commit == A


def test_a_kept_record_of_another_output_is_not_taken(made: Callable[..., Record], tmp_path: Path) -> None:
    made(A)
    (first,) = (tmp_path / "before").iterdir()
    made(A, accuracy=0.9)
    (other,) = set((tmp_path / "before").iterdir()) - {first}
    for name in (RECORD, ENVELOPE):
        (first / name).write_bytes((other / name).read_bytes())
    record = made(B)
    assert (record.commit, record.metrics) == (B, {"accuracy": 0.5})


def test_a_kept_record_that_another_key_signed_is_not_taken(made: Callable[..., Record], tmp_path: Path) -> None:
    signer = another_signer(tmp_path)
    load_keyring().add_trusted(signer.public.pem)
    made(A, signer=signer)
    assert made(B).commit == B


def test_a_kept_record_of_a_commit_that_is_gone_is_not_taken(
    made: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAFTLINE_COMMIT")
    monkeypatch.setattr("graftline.environment.ROOT", tmp_path / "repo")
    git = ["git", "-C", tmp_path / "repo", "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    made(A)
    assert made(head).commit == head
    assert made(B).commit == head


def another_signer(folder: Path) -> Signer:
    (folder / "another.key").write_bytes(make_private()[0])
    return read_signer(folder / "another.key")


def unsigned(folder: Path) -> None:
    (folder / ENVELOPE).unlink()


def signed_by_another(folder: Path) -> None:
    sealed = seal((folder / RECORD).read_bytes(), STATEMENT_TYPE, another_signer(folder.parent))
    (folder / ENVELOPE).write_bytes(sealed)


def forged(folder: Path) -> None:
    value = json.loads((folder / ENVELOPE).read_bytes())
    theirs = json.loads(seal((folder / RECORD).read_bytes(), STATEMENT_TYPE, another_signer(folder.parent)))
    value["signatures"][0]["sig"] = theirs["signatures"][0]["sig"]
    (folder / ENVELOPE).write_bytes(canonical_json(value))


def of_another_record(folder: Path) -> None:
    sealed = seal(b"{}", STATEMENT_TYPE, load_keyring().signer())
    (folder / ENVELOPE).write_bytes(sealed)


def of_another_type(folder: Path) -> None:
    sealed = seal((folder / RECORD).read_bytes(), "text/plain", load_keyring().signer())
    (folder / ENVELOPE).write_bytes(sealed)


def with_another_record(folder: Path) -> None:
    statement = json.loads((folder / RECORD).read_bytes())
    statement["predicate"]["runDetails"]["byproducts"][0]["annotations"]["accuracy"] = 1
    (folder / RECORD).write_bytes(canonical_json(statement))


def revoked(folder: Path) -> None:
    keyring = load_keyring()
    stored.rotate(keyring.folder)
    stored.revoke(keyring.folder, keyring.signer().keyid)


def added_to(folder: Path, keyid: str, signature: str) -> None:
    value = json.loads((folder / ENVELOPE).read_bytes())
    value["signatures"].append({"keyid": keyid, "sig": signature})
    (folder / ENVELOPE).write_bytes(canonical_json(value))


def with_a_made_up_signer(folder: Path) -> None:
    added_to(folder, "a" * 64, "AAAA")


def with_a_signature_by_another(folder: Path) -> None:
    other = another_signer(folder.parent)
    sealed = json.loads(seal((folder / RECORD).read_bytes(), STATEMENT_TYPE, other))
    added_to(folder, other.keyid, sealed["signatures"][0]["sig"])


def with_a_forged_second_signature(folder: Path) -> None:
    added_to(folder, load_keyring().signer().keyid, "AAAA")


def signed_twice(folder: Path) -> None:
    signature = json.loads((folder / ENVELOPE).read_bytes())["signatures"][0]
    added_to(folder, signature["keyid"], signature["sig"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (with_a_made_up_signer, "signed by key a{64}, which is not known here"),
        (with_a_signature_by_another, "signed by key [0-9a-f]{64}, which is not known here"),
        (with_a_forged_second_signature, "forged: it is not signed by key [0-9a-f]{64}, which it names"),
        (signed_twice, "signed 2 times, twice by one key"),
        (unsigned, "missing: the record is not signed; expected its signature"),
        (signed_by_another, "signed by key [0-9a-f]{64}, which is not known here; expected the signature of a key"),
        (forged, "forged: it is not signed by key [0-9a-f]{64}, which it names"),
        (of_another_record, "it signs other bytes .*; expected a signature over sha256 [0-9a-f]{64}"),
        (of_another_type, "it signs other bytes"),
        (with_another_record, "it signs other bytes"),
        (revoked, "signed by key [0-9a-f]{64}, which was revoked"),
    ],
)
def test_a_record_without_a_trusted_signature_says_in_which_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], line: str
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    out = tmp_path / "trunk"
    out.mkdir()
    (out / "content").write_text("content")
    write_record(out, Draft("pretrain", "digits", "trunk"))
    verify(out)
    change(out)
    with pytest.raises(InputError, match=rf"record\.dsse\.json: {line}.*; .*run the stage that makes it again"):
        verify(out)


def test_a_record_of_a_retired_key_is_still_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    (tmp_path / "trunk").mkdir()
    write_record(tmp_path / "trunk", Draft("pretrain", "digits", "trunk"))
    old = load_keyring().signer().keyid
    stored.rotate(tmp_path / "keys")
    verify(tmp_path / "trunk")
    assert check_signature(tmp_path / "trunk") == [old]


def test_a_record_of_another_machine_is_verified_once_its_key_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "theirs"))
    (tmp_path / "trunk").mkdir()
    write_record(tmp_path / "trunk", Draft("pretrain", "digits", "trunk"))
    theirs = load_keyring().signer().public
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "ours"))
    with pytest.raises(InputError, match=f"signed by key {theirs.keyid}, which is not known here"):
        verify(tmp_path / "trunk")
    load_keyring().add_trusted(theirs.pem)
    verify(tmp_path / "trunk")


def copy_lines(context: Context) -> None:
    (context.out / "lines").write_text("".join(p.read_text() for p in sorted(context.paths["raw"].glob("*.txt"))))


COPY = Component("validate", "Copy.", "dataset", lambda: copy_lines, sources=("raw",))


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "raw" / "deep").mkdir(parents=True)
    (tmp_path / "raw" / "a.txt").write_text("a\n")
    (tmp_path / "raw" / "deep" / "b.txt").write_text("b\n")
    return ["--params", '{"task": "digits"}', "--in-raw", str(tmp_path / "raw"), "--out-dataset", str(tmp_path / "out")]


def test_the_record_names_each_file_of_a_folder_from_outside(tmp_path: Path, arguments: list[str]) -> None:
    main(COPY, arguments)
    raw = verify(tmp_path / "out").input("raw")
    assert raw is not None
    assert [(file.path, file.size) for file in raw.files] == [("a.txt", 2), ("deep/b.txt", 2)]
    assert raw.files[0].sha256 == sha256_bytes(b"a\n")
    assert digest_files(raw.files) == digest_path(tmp_path / "raw") == raw.sha256


def test_that_an_earlier_record_stays_is_no_line_of_the_components_own(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of those is what a run on a cluster shows of the step."""
    for commit in (A, B):
        monkeypatch.setenv("GRAFTLINE_COMMIT", commit)
        main(COPY, arguments)
    assert read_record(tmp_path / "out").commit == A
    assert capsys.readouterr().err == f"record: the same dataset as commit {A[:12]} made; its record stays\n"


def test_a_file_from_outside_is_named_by_its_digest(tmp_path: Path, arguments: list[str]) -> None:
    main(COPY, [*arguments[:3], str(tmp_path / "raw" / "a.txt"), *arguments[4:]])
    assert verify(tmp_path / "out").input("raw") == Dependency("raw", sha256_bytes(b"a\n"))


def test_without_a_key_nothing_is_done(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container whose secret is missing says so at once, and not after hours of training."""
    (tmp_path / "keys").write_text("")
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys" / "none"))
    with pytest.raises(SystemExit) as end:
        main(replace(COPY, load=pytest.fail), arguments)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"validate: {tmp_path}/keys/none: not a directory; expected the folder of the signing keys;")
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()
