"""What counts as a change of the code that runs (graftline.environment)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from graftline.environment import code_revision

SHA = "d" * 64


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of some code, parameters and notes."""
    monkeypatch.delenv("GRAFTLINE_COMMIT", raising=False)
    monkeypatch.setattr("graftline.environment.ROOT", tmp_path)
    for name in (
        "src/graftline/a.py",
        "components/fit/b.py",
        "data/mnist/params.yaml",
        "docs/c.md",
        "dvc.lock",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "run.log",
        "notes/today.md",
        "dvc.lock",
        "docs/c.md",
        "tests/test_new.py",
        "data/store/files/md5/00/1",
        "images.lock",
        "pipelines/compiled/a.yaml",
    ],
)
def test_what_is_no_code_is_no_change(checkout: Path, name: str) -> None:
    """K29: `make run | tee run.log` in the checkout made every record say that the code had changed."""
    before = code_revision()
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("another\n")
    assert code_revision() == before and before.keys() == {"commit"}


@pytest.mark.parametrize(
    "name", ["src/graftline/a.py", "src/graftline/new.py", "components/fit/new.py", "pipelines/new.py",
             "data/mnist/params.yaml", "data/letters/params.yaml", "dvc.yaml", "requirements.lock"],
)  # fmt: skip
def test_changed_and_new_code_parameters_and_locks_are(checkout: Path, name: str) -> None:
    before = code_revision()
    found = set()
    for text in ("two\n", "three\n"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
        revision = code_revision()
        assert revision["commit"] == before["commit"]
        found.add(revision["dirty"])
    assert len(found) == 2, "the digest is of the change"


@pytest.mark.parametrize(
    ("named", "revision"),
    [("a" * 40, {"commit": "a" * 40}), ("a" * 40 + "+" + SHA, {"commit": "a" * 40, "dirty": SHA})],
)
def test_an_image_says_which_commit_it_has_and_which_changes(
    monkeypatch: pytest.MonkeyPatch, named: str, revision: dict[str, str]
) -> None:
    monkeypatch.setenv("GRAFTLINE_COMMIT", named)
    assert code_revision() == revision
