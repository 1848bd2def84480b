"""What a container gets to sign with: one private key, in files, for as long as it runs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.engines import containers
from graftline.rows.subjects import KEY_FILE, load_key
from graftline.signing import keyring as stored
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import make_private
from graftline.signing.mounting import keys_for_mounting

SIGNER = "from graftline.signing.keyring import load_keyring; k = load_keyring(); print(k.signer().keyid, *k.public)"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


def inside(named: dict[str, str], folder: Path, mounted: str) -> list[str]:
    """Return what signs in a process that sees `folder` only; then each key that it trusts."""
    named = {name: value.replace(mounted, str(folder)) for name, value in named.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    command = [sys.executable, "-c", SIGNER]
    return subprocess.run(command, env=kept | named, capture_output=True, text=True, check=True).stdout.split()


def test_the_folder_holds_the_key_that_signs_and_no_other_private_one(keys: Path, tmp_path: Path) -> None:
    old = load_keyring().signer().keyid
    stored.rotate(keys)
    new = load_keyring().signer().keyid
    with keys_for_mounting(tmp_path / "mount", "/keys") as named:
        assert stat.S_IMODE((tmp_path / "mount").stat().st_mode) == 0o700
        assert [path.name for path in (tmp_path / "mount").glob("*.key")] == [f"{new}.key"]
        assert stat.S_IMODE((tmp_path / "mount" / f"{new}.key").stat().st_mode) == 0o600
        assert inside(named, tmp_path / "mount", "/keys") == [new, old, new]
        assert "PRIVATE" not in str(named)
    assert not (tmp_path / "mount").exists()


def test_the_subjects_key_is_mounted_and_made_before_for_a_task_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "ROOT", tmp_path)
    columns: dict[str, dict[str, Any]] = {
        "text": {"type": "text"},
        "label": {"type": "integer", "role": "label", "classes": [0, 1]},
        "person": {"type": "string"},
    }
    for task, more in (("plain", {}), ("persons", {"subject": "person"})):
        (tmp_path / "data" / task).mkdir(parents=True)
        (tmp_path / "data" / task / "expectations.yaml").write_text(json.dumps({"columns": columns} | more))
        containers._make_subjects_key(task, str(tmp_path / "store"))
        with keys_for_mounting(tmp_path / "mount", "/keys"):
            assert (tmp_path / "mount" / KEY_FILE).exists() == (task == "persons")
            if task == "persons":
                assert (tmp_path / "mount" / KEY_FILE).read_bytes() == load_key(create=False)
                assert stat.S_IMODE((tmp_path / "mount" / KEY_FILE).stat().st_mode) == 0o600


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "old.key").write_text("of a run that was killed")
    with keys_for_mounting(tmp_path / "mount", "/keys"):
        assert not (tmp_path / "mount" / "old.key").exists()


@pytest.mark.root
def test_the_containers_user_owns_it(tmp_path: Path) -> None:
    with keys_for_mounting(tmp_path / "mount", "/keys", user=10001):
        assert {path.stat().st_uid for path in [tmp_path / "mount", *(tmp_path / "mount").iterdir()]} == {10001}


def test_a_key_that_graftline_key_names_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, public = make_private()
    (tmp_path / "given.pem").write_bytes(pem)
    monkeypatch.setenv("GRAFTLINE_KEY", str(tmp_path / "given.pem"))
    with keys_for_mounting(tmp_path / "mount", "/keys") as named:
        assert inside(named, tmp_path / "mount", "/keys")[0] == public.keyid


def test_a_services_key_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, public = make_private()
    (tmp_path / "private.pem").write_bytes(pem)
    (tmp_path / "public.pem").write_text(public.pem)
    monkeypatch.setenv("GRAFTLINE_KEY", f"file2:{tmp_path}/private.pem")
    monkeypatch.setenv("GRAFTLINE_PUBLIC_KEY", str(tmp_path / "public.pem"))
    with keys_for_mounting(tmp_path / "mount", "/keys") as named:
        assert [path.name for path in (tmp_path / "mount").iterdir()] == ["given.pem"]
        assert inside(named, tmp_path / "mount", "/keys")[0] == public.keyid
