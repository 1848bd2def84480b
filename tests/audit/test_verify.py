"""verify: what it says of a store, of one release, in which words and with which exit code."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from memory import MemoryStore
from published import Publisher, fill, new_signer
from servers import moto_endpoint, moto_url

from graftline import runs
from graftline.audit.verify.hashing import State, hash_all
from graftline.audit.verify.verifying import Options, Verdict, verify
from graftline.cli.verify import verify as verify_command
from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError, InputError
from graftline.ledger.checkpoint import make_checkpoint, remember
from graftline.ledger.entries import Fact
from graftline.ledger.log import Ledger, key_event
from graftline.releases.catalogue import resolve
from graftline.signing import keyring
from graftline.signing.keyring import keys_folder, load_keyring
from graftline.store import Store, Stored
from graftline.store import s3 as s3_store
from graftline.store.documents import json_bytes
from graftline.store.opening import open_store

__all__ = ["moto_endpoint", "moto_url"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A store of two tasks in a folder, and a checkpoint's line."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_KEYS", str(folder / "keys"))
        patch.setenv("GRAFTLINE_CACHE", str(folder / "cache"))
        store = MemoryStore("memory", {})
        checkpoint = fill(store, folder / "work")
        for key, data in store.content.items():
            (folder / "store" / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / "store" / key).write_bytes(data)
        yield folder / "store", checkpoint.line


@pytest.fixture
def folder(made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store, on the machine that made it."""
    monkeypatch.setenv("GRAFTLINE_KEYS", str(made[0].parent / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made[0], tmp_path / "store")
    return tmp_path / "store"


def run(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code as `graftline` gives it, and what it printed."""
    app = typer.Typer()
    app.command()(verify_command)
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, GraftlineError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.stdout


def faults(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.kind, finding.place) for finding in verdict.findings if finding.kind != "erased"]


def test_what_this_machine_remembers_of_the_ledger_vouches_for_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command `ledger checkpoint` makes it remember; it carries no signature, lying beside the keys."""
    shutil.copytree(keys_folder(), tmp_path / "keys")
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store = open_store(str(folder))
    remember(store.identity, make_checkpoint(Ledger(store)))
    code, said = run("--store", str(folder))
    assert (code, "the last checkpoint seen here" in said) == (0, True)
    sorted((folder / "ledger").iterdir())[-1].unlink()
    assert run("--store", str(folder))[0] == 1


def test_a_whole_store_gives_one_line_and_the_code_0(folder: Path) -> None:
    code, said = run("--store", str(folder))
    assert code == 0
    assert said.splitlines()[-1].startswith(f"whole: {folder} (all): 1 erased; ")
    assert "the ledger is vouched for: its first key" in said
    assert run("--all", "--store", str(folder))[0] == 0


def test_a_changed_file_gives_the_code_1_with_file_step_and_both_digests(folder: Path) -> None:
    changed = folder / "releases/digits/2/model.safetensors"
    before = sha256_bytes(changed.read_bytes())
    changed.write_bytes(b"other")
    code, said = run("--json", "--store", str(folder))
    assert code == 1
    verdict = json.loads(said)
    (finding,) = [finding for finding in verdict["findings"] if finding["kind"] != "erased"]
    assert finding == {
        "kind": "tampered",
        "place": "releases/digits/2/model.safetensors",
        "step": "model",
        "file": "model.safetensors",
        "row": "",
        "expected": f"sha256 {before}, 1280 bytes",
        "actual": f"sha256 {sha256_bytes(b'other')}, 5 bytes",
    }
    assert verdict["whole"] is False
    table = run("--store", str(folder))[1]
    assert "step model" in table and "NOT WHOLE" in table


def test_one_release_is_verified_with_all_that_it_came_from_and_nothing_else(folder: Path) -> None:
    store = open_store(str(folder))
    record = resolve(store, "letters@1")
    manifest = json.loads((folder / "releases/letters/1/manifest.json").read_bytes())
    (folder / "releases/digits/1/model.safetensors").write_bytes(b"other")
    assert verify(store, record).whole
    assert run("letters", "--store", str(folder))[0] == 0
    assert run("digits@1", "--store", str(folder))[0] == 1
    (folder / f"records/{manifest['records']['dataset']}.json").write_bytes(b"{}")
    assert faults(verify(store, record)) == [("tampered", f"records/{manifest['records']['dataset']}.json")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--store", "/nowhere/at/all"), "no such store"),
        (("--sample", "2"), "expected a fraction above 0 and at most 1"),
        (("--key", "xyz"), "expected at least the first 16 hexadecimal digits"),
        (("--checkpoint", "no file"), "neither a checkpoint nor a file that can be read"),
        (("nothing@1",), "task 'nothing': no release in"),
        (("nothing@1",), "which has digits, letters"),
        (("digits@7",), "task 'digits': no version 7; expected one of the versions 1 (champion), 2"),
        (("digits@none",), "task 'digits': no alias 'none'"),
        (("digits@../1",), "expected task@version or task@alias"),
        (("..",), "expected a name of lower-case letters"),
        (("digits", "--all"), "expected one or the other"),
    ],
)
def test_what_cannot_be_told_gives_the_code_2(folder: Path, arguments: tuple[str, ...], line: str) -> None:
    given = arguments if "--store" in arguments else (*arguments, "--store", str(folder))
    code, said = run(*given)
    assert (code, line in said) == (2, True), said


def test_a_store_that_is_gone_is_not_whole(folder: Path) -> None:
    """Neither an empty folder, nor a mistyped one, nor one without its ledger of which no machine knows."""
    for name in ("empty", "empty/records"):
        (folder.parent / name).mkdir()
    for arguments in ((), ("--json",), ("--all",), ("--sample", "0.5")):
        code, said = run(*arguments, "--store", str(folder.parent / "empty"))
        assert (code, "nothing there to verify" in said) == (2, True), said
    assert run("digits@1", "--store", str(folder.parent / "empty"))[0] == 2
    assert run("--key", "0" * 16, "--store", str(folder.parent / "empty"))[0] == 1, "there should be one"
    shutil.rmtree(folder / "ledger")
    assert run("--store", str(folder))[0] == 1, "what is left has nobody who vouches for it"


NAMED = "releases/digits/2/manifest.json"
POINTING = "aliases/digits/champion.json"


def change_manifest(folder: Path) -> None:
    (folder / NAMED).write_bytes((folder / NAMED).read_bytes().replace(b'"accuracy":0.9', b'"accuracy":0.99'))


def point_elsewhere(folder: Path) -> None:
    (folder / POINTING).write_bytes((folder / POINTING).read_bytes().replace(b'"version":1', b'"version":2'))


def damage_last_entry(folder: Path) -> None:
    last = sorted((folder / "ledger").iterdir())[-1]
    last.write_bytes(last.read_bytes().replace(b'"version":1', b'"version":2'))


@pytest.mark.parametrize(
    ("name", "change", "kind", "place"),
    [
        ("digits@2", change_manifest, "tampered", NAMED),
        ("digits@2", lambda folder: (folder / NAMED).write_bytes(b"{"), "tampered", NAMED),
        ("digits@2", lambda folder: (folder / NAMED).unlink(), "missing", NAMED),
        ("digits", point_elsewhere, "tampered", POINTING),
        ("digits@champion", lambda folder: (folder / POINTING).write_bytes(b"x"), "tampered", POINTING),
        ("digits", lambda folder: (folder / POINTING).unlink(), "missing", POINTING),
        (
            "digits@planted",
            lambda folder: (folder / "aliases/digits/planted.json").write_bytes(b"x"),
            "unexpected",
            "aliases/digits/planted.json",
        ),
        ("digits", damage_last_entry, "tampered", None),
        ("digits@2", damage_last_entry, "tampered", None),
    ],
)
def test_a_change_of_what_names_the_release_is_reported_and_ends_no_question(
    folder: Path, name: str, change: Callable[[Path], object], kind: str, place: str | None
) -> None:
    place = place or f"ledger/{max(path.name for path in (folder / 'ledger').iterdir())}"
    change(folder)
    code, said = run(name, "--json", "--store", str(folder))
    assert code == 1, said
    assert (kind, place) in [(finding["kind"], finding["place"]) for finding in json.loads(said)["findings"]]
    assert run(name, "--store", str(folder))[0] == 1


def test_an_alias_is_what_the_ledger_said_last_not_what_its_file_says(folder: Path) -> None:
    point_elsewhere(folder)
    (folder / "releases/digits/1/model.safetensors").write_bytes(b"other")
    verdict = verify(open_store(str(folder)), "digits")
    assert verdict.scope == "digits@1"
    assert faults(verdict) == [("tampered", POINTING), ("tampered", "releases/digits/1/model.safetensors")]


class Busy(MemoryStore):
    """A store to which somebody writes the first few times that an object is read whose key begins so."""

    def __init__(self, content: dict[str, bytes], begins: str, write: Callable[[Store], object], times: int) -> None:
        super().__init__(f"memory {uuid.uuid4()}", content)  # each one's ledger grows in its own way
        self.begins, self.write, self.left = begins, write, times

    def get(self, key: str) -> Stored:
        if key.startswith(self.begins) and self.left:
            begins, self.begins, self.left = self.begins, "nothing", self.left - 1
            self.write(self)
            self.begins = begins
        return super().get(key)


@pytest.mark.parametrize("begins", ["ledger/", "aliases/", "rows/"])
def test_a_release_that_comes_while_the_store_is_read_is_no_tampering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    publisher = Publisher(tmp_path / "work", MemoryStore("memory", {}))
    publisher.release("digits", "one")
    content = MemoryStore.of(publisher.store).content

    def publish(store: Store) -> None:
        publisher.store = store
        publisher.release("digits", f"more {publisher.made}")

    store = Busy(content, begins, publish, 2)
    assert verify(store, None, Options(readers=1, keep_state=False)).findings == ()
    assert store.left == 0


def test_a_store_that_is_written_to_all_the_time_gets_a_verdict(folder: Path) -> None:
    count = iter(range(1000))

    def note(store: Store) -> None:
        store.put_if_absent(f"runs/n{next(count)}.json", b"{}\n")

    store = Busy(MemoryStore.of(open_store(str(folder))).content, "aliases/", note, 1000)
    store.content["releases/digits/1/model.safetensors"] = b"other"
    hashed = []
    options = Options(readers=1, keep_state=False, progress=lambda done, of: hashed.append(done))
    assert ("tampered", "releases/digits/1/model.safetensors") in faults(verify(store, None, options))
    assert 1 < store.left < 1000
    files = [key for key in store.content if key.startswith("releases/")]
    assert len(hashed) < 2 * len(files), "what was hashed and is as it should be is not hashed again"


def test_a_store_out_of_reach_gives_the_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3_store, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(s3_store, "ATTEMPTS", 1)
    code, said = run("--store", "s3://bucket/prefix")
    assert (code, "could not tell" in said) == (2, True), said


def test_a_ledger_that_was_cut_off_is_found_by_a_checkpoint_as_text_or_in_a_file(
    folder: Path, made: tuple[Path, str], tmp_path: Path
) -> None:
    assert run("--checkpoint", made[1], "--store", str(folder))[0] == 0
    last = sorted((folder / "ledger").iterdir())[-1]
    last.unlink()
    (tmp_path / "kept.txt").write_text(made[1] + "\n")
    for given in (made[1], str(tmp_path / "kept.txt")):
        code, said = run("--checkpoint", given, "--store", str(folder))
        assert (code, f"ledger/{last.name}" in said) == (1, True)


def test_an_auditor_without_keys_gives_the_first_key_or_a_checkpoint(
    folder: Path, made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads((folder / "ledger/00000001.json").read_bytes())["key"]
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "none"))
    assert faults(verify(open_store(str(folder)))) == [("unknown key", "ledger/00000001.json")]
    assert run("--key", first[:16], "--store", str(folder))[0] == 0
    assert run("--checkpoint", made[1], "--store", str(folder))[0] == 0
    assert run("--key", "0" * 16, "--store", str(folder))[0] == 1
    assert not (tmp_path / "none").exists(), "verifying makes no key"


def entered(folder: Path, signer: Any) -> str:
    """Append an entry by a key that may not; return its place."""
    from test_tampering import append

    store = MemoryStore.of(open_store(str(folder)))
    before = set(store.content)
    append(store.content, Fact("rollback", "digits", 2, "0" * 64, "x", "champion"), signer)
    (key,) = store.content.keys() - before
    (folder / key).write_bytes(store.content[key])
    return key


@pytest.mark.parametrize("kind", ["unknown key", "expired key", "revoked key"])
def test_an_entry_by_a_key_that_may_not_sign_is_named_with_the_reason(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(keys_folder(), tmp_path / "keys")
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store, loaded = open_store(str(folder)), load_keyring()
    first = next(iter(loaded.known))
    signer = new_signer(tmp_path) if kind == "unknown key" else loaded.own_signer(first)
    if kind == "revoked key":
        key_event(store, "revoke", loaded.known[first].public)
    # What a revoked key signed before stands where the ledger dates it; the row index is to be built again.
    assert {place.split("/")[0] for _, place in faults(verify(store))} <= ({"rows"} if kind == "revoked key" else set())
    place = entered(folder, signer)
    assert (kind, place) in faults(verify(store))


def test_a_record_by_a_key_that_was_revoked_is_found_where_no_release_vouches_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline.releases.provenance import Provenance, keep

    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store = MemoryStore("memory", {})
    publisher = Publisher(tmp_path / "work", store)
    second = new_signer(tmp_path)
    load_keyring().add_trusted(second.public.pem)
    publisher.release("digits", "one")
    publisher.release("letters", "one", second)
    refused = publisher.draft("words", "refused", second)
    keep(store, Provenance(refused.records, refused.envelopes, refused.locks), load_keyring())
    assert faults(verify(store, None, Options(keep_state=False))) == []
    keyring.revoke(keys_folder(), second.public.keyid)
    found = faults(verify(store, None, Options(keep_state=False)))
    assert {kind for kind, _ in found} == {"revoked key"}


def test_a_record_without_a_signature_is_unsigned_and_a_missing_file_missing(folder: Path) -> None:
    (signature,) = list((folder / "signatures").iterdir())[:1]
    shutil.rmtree(signature)
    (folder / "releases/digits/1/schema.json").unlink()
    found = faults(verify(open_store(str(folder))))
    assert ("unsigned", f"records/{signature.name}.json") in found
    assert ("missing", "releases/digits/1/schema.json") in found
    assert len(found) == 2


def test_what_a_receipt_covers_is_erased_and_what_comes_back_is_not(folder: Path) -> None:
    verdict = verify(open_store(str(folder)))
    (erased,) = verdict.findings
    assert (erased.kind, erased.row, verdict.whole) == ("erased", "1 erased", True)
    blocked = folder / "erased/letters.json"
    blocked.write_bytes(b'{"rows":[],"subjects":[]}')
    (finding,) = [f for f in verify(open_store(str(folder))).findings if f.kind != "erased"]
    assert (finding.place, finding.kind) == ("erased/letters.json", "tampered")
    assert finding.row == sha256_bytes(b"letters 3")


def test_values_from_a_store_are_shown_and_never_obeyed(folder: Path) -> None:
    (folder / "releases/digits/1/claim.json").write_bytes(b'{"publication":"[red]\x1b[2J","payload":"x"}')
    said = run("--store", str(folder))[1]
    assert "[red]" in said and "\x1b" not in said


# Reading: parallel, resumable, sampled, from both kinds of stores


def test_an_interrupted_run_is_resumed_where_it_stopped_if_asked(folder: Path) -> None:
    store = open_store(str(folder))

    def stop(done: int, of: int) -> None:
        if done > of / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(store, None, Options(progress=stop))
    resumed = verify(store, None, Options(resume=True))
    assert resumed.whole and 0 < resumed.resumed < resumed.objects
    assert verify(store, None, Options(resume=True)).resumed == 0, "a run that came to its end leaves nothing"
    with pytest.raises(KeyboardInterrupt):
        verify(store, None, Options(progress=stop))
    assert verify(store).resumed == 0, "a new run hashes everything"


def test_a_file_that_changed_since_is_hashed_again(folder: Path) -> None:
    store, key = open_store(str(folder)), "releases/digits/1/model.safetensors"
    state = State.of(store.url, resume=False)
    first = hash_all(store, [key], 1, state)[key]
    state.close(done=False)
    (folder / key).write_bytes(b"x" * 1280)  # as long as before
    state = State.of(store.url, resume=True)
    again = hash_all(store, [key], 1, state)[key]
    state.close(done=True)
    assert first and again and (again.resumed, again.sha256) == (False, sha256_bytes(b"x" * 1280))


def test_a_damaged_state_is_ignored(folder: Path) -> None:
    state = State.of(str(folder), resume=False)
    state.close(done=False)
    (path,) = (folder.parent / "cache/verify").iterdir()
    path.write_bytes(b'["a"]\n{\nnull\n["half')
    assert verify(open_store(str(folder)), None, Options(resume=True)).whole


def test_a_sample_reads_a_share_that_its_seed_decides(folder: Path) -> None:
    store = open_store(str(folder))
    one, same = (verify(store, None, Options(sample=0.5, seed="a")) for _ in range(2))
    assert one.whole and (one.sampled_out, one.bytes) == (same.sampled_out, same.bytes)
    assert 0 < one.sampled_out < verify(store).objects
    seeds = {verify(store, None, Options(sample=0.5, seed=str(seed))).bytes for seed in range(4)}
    assert len(seeds) > 1
    said = run("--sample", "0.5", "--store", str(folder))[1]
    assert "(--seed " in said
    (folder / "releases/digits/1/schema.json").unlink()
    assert not verify(store, None, Options(sample=0.01)).whole, "what is missing is seen in any sample"


def test_a_store_on_s3_is_read_in_parts_and_verified_the_same(
    moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(s3_store, "PART_BYTES", 500)
    source = MemoryStore("memory", {})
    Publisher(tmp_path / "work", source).release("digits", "one")
    store = open_store(moto_url)
    for key, data in source.content.items():
        assert store.put_if_absent(key, data)
    release = verify(store, resolve(store, "digits@1"))
    assert release.findings == () and release.bytes > 1280
    bucket, _, prefix = moto_url.removeprefix("s3://").partition("/")
    key = "releases/digits/1/model.safetensors"
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"x" * 1280)
    assert faults(verify(store)) == [("tampered", key)]


def test_both_kinds_of_stores_stream_the_same_bytes(tmp_path: Path, moto_url: str) -> None:
    content = bytes(range(256)) * 5000
    for store in (open_store(str(tmp_path / "s")), open_store(moto_url)):
        for key, data in (("a/large", content), ("a/empty", b"")):
            store.put_if_absent(key, data)
            assert b"".join(store.stream(key)) == data
            assert store.stat(key).size == len(data)
        before = store.stat("a/large").tag
        assert store.replace("a/large", b"other", store.get("a/large").tag)
        assert store.stat("a/large").tag != before
        with pytest.raises(GraftlineError, match="nothing is stored under a/none"):
            store.stat("a/none")
        with pytest.raises(GraftlineError, match="nothing is stored under a/none"):
            list(store.stream("a/none"))


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed_up(
    moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PART_BYTES", 4)
    store: Store = open_store(moto_url)
    store.put_if_absent("a", b"12345678")
    parts = store.stream("a")
    assert next(parts) == b"1234"
    assert store.replace("a", b"abcdefgh", store.get("a").tag)
    with pytest.raises(InputError, match="PreconditionFailed"):
        next(parts)


def test_what_runs_leave_is_counted_as_notes_and_named_where_it_is_of_another_run(folder: Path) -> None:
    """Attempts, open runs, ends, claims, schedules, heartbeats: unsigned, and no fault of the store."""
    store = open_store(str(folder))
    before = verify(store)
    moment, start = "2026-11-28T23:10:00Z", runs.Start("r2", "k" * 64, "digits", reason={"who": "ada"})
    for code in (1, 0):
        runs.add_attempt(store, runs.Attempt("r2", "publish", code, "no room", moment, moment))
    runs.conclude(store, runs.End(start, "FAILED", "publish", "no room", moment))
    runs.begin_again(store, "r2")
    runs.conclude(store, runs.End(start, "SUCCEEDED", ended=moment))
    runs.begin(store, replace(start, run="r3"))
    for key, value in (
        ("runs/claims/k.json", {"run": "r2"}),
        ("runs/schedules/nightly.json", {"since": moment}),
        ("runs/r0.json", {"run_key": "r0", "state": "SUCCEEDED"}),
        ("handover/r3/pretrain/heartbeat", {"at": moment}),
        ("handover/r3/pretrain/note.made", {}),
    ):
        store.put_if_absent(key, json_bytes(value))
    after = verify(store)
    assert (after.whole, after.findings) == (True, before.findings)
    assert after.form_only - before.form_only == 10
    for key, other in (
        ("runs/r2.json", "runs/r4.json"),
        ("runs/open/r3.json", "runs/open/r4.json"),
        ("runs/steps/r2/publish.1.json", "runs/steps/r2/publish.9.json"),
    ):
        store.put_if_absent(other, store.get(key).data)
        assert ("tampered", other) in faults(verify(store))
