"""`graftline ledger`: what it prints, and how it ends."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from facts import changed, fact, new_signer, path_of, release, rewrite
from typer.testing import CliRunner, Result

from graftline.cli.anchors import read_checkpoints
from graftline.cli.ledger import app
from graftline.errors import InputError
from graftline.ledger.checkpoint import ORIGIN, parse_checkpoint, seen_path
from graftline.ledger.log import Ledger
from graftline.ledger.merkle import leaf_hash, verify_inclusion
from graftline.signing.keyring import load_keyring
from graftline.store import Store


def run(store: Store, *arguments: str) -> Result:
    options = ["--store", store.url] if not arguments or arguments[0].startswith("-") else []
    rest = [] if options else ["--store", store.url]
    return CliRunner().invoke(app, [*options, *arguments, *rest])


def test_the_table_and_the_json_list_every_entry(store: Store) -> None:
    Ledger(store).append(lambda _: fact("promoted", 3, "champion"))
    lines = run(store).stdout.splitlines()
    assert len(lines) == 6
    assert lines[-1].split()[:4] == ["5", "promote", "digits@3", "champion"]
    assert "anna" in lines[-1]
    listed = json.loads(run(store, "--json").stdout)
    assert [entry["event"] for entry in listed] == ["key", "release", "release", "release", "promote"]
    assert [entry["sequence"] for entry in json.loads(run(store, "--task", "digits", "--json").stdout)] == [2, 3, 4, 5]
    assert "no entries" in run(store, "--task", "letters").stdout


def test_names_in_entries_do_not_reach_the_terminal_as_commands(store: Store) -> None:
    Ledger(store).append(lambda _: fact("x", 4, "[red]\x1b[2J\u202e"))
    assert "\x1b" not in run(store).stdout
    assert "[red]" in run(store).stdout


def test_a_kept_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    for given in ("no file", str(tmp_path), str(tmp_path / "bytes")):
        with pytest.raises(InputError, match="neither a checkpoint nor a file that can be read"):
            read_checkpoints([given])
    with pytest.raises(InputError, match="--checkpoint 1"):
        read_checkpoints([f"{ORIGIN}and so on"])


def test_a_checkpoint_is_one_line_and_verifies_later(store: Store, tmp_path: Path) -> None:
    line = run(store, "checkpoint").stdout
    assert line.count("\n") == 1
    kept = json.loads(run(store, "checkpoint", "--json").stdout)
    assert parse_checkpoint(kept["note"]).size == parse_checkpoint(line).size == kept["size"] == 4
    (tmp_path / "kept.txt").write_text(kept["note"])
    release(store, 4)
    for given in (line, str(tmp_path / "kept.txt")):
        assert run(store, "verify", "--checkpoint", given).exit_code == 0
    for sequence in (4, 5):
        path_of(store, sequence).unlink()
    seen_path(store.url).unlink()
    assert run(store, "verify").exit_code == 0, "it agrees with itself, and this machine has forgotten"
    seen_path(store.url).unlink()
    done = run(store, "verify", "--checkpoint", line)
    assert done.exit_code == 1
    assert "broken: " in done.stdout
    assert "ledger/00000004.json: missing: 3 entries" in done.stdout


def test_what_was_verified_once_is_remembered(store: Store) -> None:
    assert run(store, "verify").exit_code == 0
    path_of(store, 4).unlink()
    done = run(store, "verify", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"][0].startswith(
        "ledger/00000004.json: missing: 3 entries; expected 4 entries"
    )
    assert run(store, "verify").exit_code == 1, "a broken one is not remembered"


def test_a_broken_entry_ends_with_1_and_names_it(store: Store) -> None:
    changed(path_of(store, 2), version=7)
    done = run(store, "verify")
    assert done.exit_code == 1
    assert "00000002.json: tampered: its signature is not one of key" in done.stdout


def test_an_unknown_first_key_ends_with_2_and_a_wrong_one_with_1(store: Store, tmp_path: Path) -> None:
    own = load_keyring().signer().keyid
    mallory = new_signer(tmp_path)
    rewrite(store, mallory, lambda facts: facts)
    done = run(store, "verify")
    assert done.exit_code == 2
    assert f"could not tell: the ledger begins with key {mallory.keyid}" in done.stdout
    assert run(store, "verify", "--key", own).exit_code == 1
    assert run(store, "verify", "--key", mallory.keyid).exit_code == 0
    assert json.loads(run(store, "verify", "--json").stdout)["status"] == "ok", "it was remembered"


@pytest.mark.parametrize(
    "arguments", [("--key", "abc"), ("--checkpoint", "no/such/file"), ("--checkpoint", "graftline.dev/ledger/x")]
)
def test_what_cannot_be_compared_ends_with_2(store: Store, arguments: tuple[str, str]) -> None:
    error = run(store, "verify", *arguments).exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2


def test_an_unreachable_store_ends_with_2(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftline.store import s3

    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = CliRunner().invoke(app, ["verify", "--store", moto_url])
    assert isinstance(done.exception, InputError)
    assert "the ledger cannot be verified" in str(done.exception)


def test_a_proof_holds_by_the_rfcs_algorithm_and_names_a_checkpoint(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = json.loads(run(store, "prove", "digits@2").stdout)
    leaf = base64.b64decode(proof["leaf"])
    assert leaf == path_of(store, 3).read_bytes()
    root = parse_checkpoint(proof["checkpoint"]).root
    path = [bytes.fromhex(step) for step in proof["path"]]
    assert verify_inclusion(leaf_hash(leaf), proof["index"], proof["size"], path, root)
    assert root.hex() == proof["root"]
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "an auditor's"))
    assert json.loads(run(store, "prove", "digits@2").stdout) == proof | {"checkpoint": None}
    assert not (tmp_path / "an auditor's").exists()
    for name in ("digits@9", "digits", "digits@champion"):
        assert isinstance(run(store, "prove", name).exception, InputError)


@pytest.mark.parametrize("name", ["never made", "empty"])
def test_a_store_that_is_gone_ends_with_2(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in ((), ("--json",)):
        done = CliRunner().invoke(app, ["verify", *arguments, "--store", str(tmp_path / name)])
        assert isinstance(done.exception, InputError) and done.exception.exit_code == 2
        assert "nothing there to verify" in str(done.exception) and done.stdout == ""
    own = load_keyring().signer().keyid
    done = CliRunner().invoke(app, ["verify", "--key", own, "--store", str(tmp_path / name)])
    assert done.exit_code == 1 and "no entry" in done.stdout, "something from outside says that there was one"
