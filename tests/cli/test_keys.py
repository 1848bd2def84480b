"""`graftline keys`: what signs here, and what a store's ledger learns of it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from graftline.cli.keys import app
from graftline.errors import GraftlineError, InputError
from graftline.ledger.log import Ledger
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import make_private
from graftline.store.opening import open_store


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with one release, whose ledger begins with this machine's key."""
    (tmp_path / "model").write_text("weights")
    url = str(tmp_path / "store")
    publish(open_store(url), ReleaseDraft("digits", {"model": tmp_path / "model"}, {}), Publication("one"))
    return url


def run(*arguments: str) -> Result:
    """Run the command in this process; its errors come as they are raised."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, GraftlineError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def listed() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(run("--json").output)
    return rows


def test_the_list_shows_what_signs_and_says_where_it_is(keys: Path) -> None:
    text = run().output
    [row] = listed()
    assert row["keyid"] == load_keyring().signer().keyid
    assert (row["of"], row["state"], row["signs"]) == ("this machine", "valid", True)
    assert str(row["keyid"])[:16] in text
    assert "valid, signs" in text
    assert f"in {keys}" in text


def test_a_new_key_is_entered_by_the_old_one(store: str) -> None:
    old = load_keyring().signer().keyid
    text = run("rotate", "--store", store).output
    new = load_keyring().signer().keyid
    assert f"key {new} signs from now on; retired: {old}" in text
    assert f"entry 4: trust key {new}" in text
    assert f"entry 5: retire key {old}" in text
    assert [(row["state"], row["signs"]) for row in listed()] == [("retired", False), ("valid", True)]
    trust = Ledger(open_store(store)).trust
    assert (trust.state(old), trust.state(new), trust.state(old, 3)) == ("retired", "valid", "valid")
    assert "its ledger knows that already" in run("hand-over", "--store", store).output


def test_another_stores_ledger_learns_of_it_later(store: str) -> None:
    old = load_keyring().signer().keyid
    run("rotate", "--only-here")
    assert Ledger(open_store(store)).trust.state(old) == "valid"
    run("rotate", "--only-here")
    run("hand-over", "--store", store)
    trust = Ledger(open_store(store)).trust
    assert trust.state(old) == "retired"
    assert trust.state(load_keyring().signer().keyid) == "valid"


def test_a_key_that_is_revoked_is_revoked_in_the_ledger_too(store: str) -> None:
    old = load_keyring().signer().keyid
    with pytest.raises(InputError, match=r"it is the one that signs here; .*run `graftline keys rotate` first"):
        run("revoke", old, "--store", store)
    run("rotate", "--store", store)
    text = run("revoke", old[:8], "--store", store).output
    assert f"key {old} is revoked here since 20" in text
    assert f"entry 6: revoke key {old}" in text
    assert Ledger(open_store(store)).trust.state(old) == "revoked"
    assert listed()[0]["state"] == "revoked"


def test_anothers_key_is_trusted_here_and_in_the_ledger(store: str, tmp_path: Path) -> None:
    _, another = make_private()
    (tmp_path / "their.pem").write_text(another.pem)
    text = run("trust", str(tmp_path / "their.pem"), "--store", store).output
    assert f"key {another.keyid} is trusted here" in text
    assert Ledger(open_store(store)).trust.state(another.keyid) == "valid"
    assert [row["of"] for row in listed()] == ["this machine", "another"]


def test_a_store_without_a_ledger_stays_so(tmp_path: Path) -> None:
    text = run("rotate", "--store", str(tmp_path / "empty")).output
    assert "has no ledger yet" in text
    assert not open_store(str(tmp_path / "empty")).list("ledger/")


def test_the_exported_key_is_what_other_tools_read(tmp_path: Path) -> None:
    signer = load_keyring().signer()
    (tmp_path / "key.pem").write_text(run("export").output)
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "signature").write_bytes(signer.sign(b"data"))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "data"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "Verified OK"
    assert run("export", signer.keyid).output == signer.public.pem


@pytest.mark.parametrize("name", ["", "abc", "0" * 64, "../../etc/passwd"])
def test_a_key_that_is_not_listed_is_refused(name: str) -> None:
    load_keyring()
    with pytest.raises(InputError, match=re.escape(f"key {name!r}: no such key; expected the id of one key")):
        run("revoke", name)


def test_the_key_of_graftline_key_is_listed_and_not_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, public = make_private()
    (tmp_path / "mounted.pem").write_bytes(pem)
    monkeypatch.setenv("GRAFTLINE_KEY", str(tmp_path / "mounted.pem"))
    [row] = listed()
    assert (row["keyid"], row["of"], row["signs"]) == (public.keyid, "GRAFTLINE_KEY", True)
    with pytest.raises(InputError, match="GRAFTLINE_KEY: it names the key that signs"):
        run("rotate", "--only-here")


def test_no_private_key_is_ever_printed(store: str, keys: Path) -> None:
    said = run().output + run("--json").output + run("rotate", "--store", store).output + run("export").output
    assert "PRIVATE" not in said
    for path in keys.glob("*.key"):
        assert path.read_text().splitlines()[1] not in said
