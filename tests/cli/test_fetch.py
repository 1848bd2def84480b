"""`graftline fetch`: a release's files in a folder, verified; the store's own files stay behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> str:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(bytes(range(256)))
    (files / "config.json").write_text("{}")
    draft = ReleaseDraft("digits", {path.name: path for path in files.iterdir()}, {"model": b"{}"}, {"accuracy": 0.9})
    publish(open_store(str(tmp_path / "store")), draft, Publication("one"))
    return str(tmp_path / "store")


def fetch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graftline.cli", "fetch", *map(str, arguments)]
    return forked.run(command, text=True)


def test_a_release_is_copied_by_alias(store: str, tmp_path: Path) -> None:
    out = tmp_path / "models/release"
    done = fetch("digits@champion", "--out", out, "--store", store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"digits@1 is in {out} (digest ")
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        "model.safetensors",
        "model.sig",
        "config.json",
        "records/model.json",
    }
    assert (out / "model.safetensors").read_bytes() == bytes(range(256))


def test_a_changed_release_is_not_copied(store: str, tmp_path: Path) -> None:
    (Path(store) / "releases/digits/1/config.json").write_text('{"x": 1}')
    out = tmp_path / "out"
    done = fetch("digits@champion", "--out", out, "--store", store)
    assert done.returncode == 2
    assert "config.json" in done.stderr and "by the manifest" in done.stderr
    assert not out.exists()


def test_the_same_again_leaves_the_folder_as_it_is(store: str, tmp_path: Path) -> None:
    out = tmp_path / "release"
    assert fetch("digits@champion", "--out", out, "--store", store).returncode == 0
    folder = out.stat().st_ino
    again = fetch("digits@champion", "--out", out, "--store", store)
    assert again.returncode == 0, again.stderr
    assert out.stat().st_ino == folder


@pytest.mark.parametrize("what", ["changed", "missing", "more"])
def test_a_folder_that_is_no_longer_the_release_is_refused(store: str, tmp_path: Path, what: str) -> None:
    out = tmp_path / "release"
    assert fetch("digits@champion", "--out", out, "--store", store).returncode == 0
    if what == "missing":
        (out / "config.json").unlink()
    else:
        (out / ("config.json" if what == "changed" else "mine.json")).write_text("{ }")
    again = fetch("digits@champion", "--out", out, "--store", store)
    assert again.returncode == 2
    assert "not digits@1" in again.stderr
    assert ("mine.json" if what == "more" else "config.json") in again.stderr


def test_a_fetch_that_was_killed_half_way_is_done_again(store: str, tmp_path: Path) -> None:
    out = tmp_path / "release"
    killed = tmp_path / ".release.aside-5"  # what a kill leaves: output_directory in src/graftline/durable.py
    shutil.copytree(Path(store) / "releases/digits/1/records", killed)
    assert not out.exists(), "nobody reads half of a release"
    assert fetch("digits@champion", "--out", out, "--store", store).returncode == 0
    assert (out / "model.safetensors").exists() and not killed.exists()


def test_an_empty_folder_is_filled(store: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert fetch("digits", "--out", tmp_path / "out", "--store", store).returncode == 0
    assert (tmp_path / "out/config.json").read_text() == "{}"


def test_a_folder_that_holds_something_is_refused(store: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    done = fetch("digits", "--out", tmp_path / "out", "--store", store)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
