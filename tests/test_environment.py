"""What counts as a change of the code that runs (graftline.environment)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graftline.environment import ROOT, code_revision, stage_code

SHA = "d" * 64


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of some code, parameters and notes."""
    monkeypatch.delenv("GRAFTLINE_COMMIT", raising=False)
    monkeypatch.setattr("graftline.environment.ROOT", tmp_path)
    for name in (
        "src/graftline/a.py",
        "components/fit/b.py",
        "components/fit/README.md",
        "data/letters/params.yaml",
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
        "src/run.log",
        "components/fit/README.md",
        "data/letters/params.yaml",
        "data/mnist/raw/images.csv",
        "data/mnist/notes.txt",
    ],
)
def test_what_is_no_code_is_no_change(checkout: Path, name: str) -> None:
    """K29: `make run | tee run.log` in the checkout made every record say that the code had changed."""
    before = code_revision("mnist")
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("another\n")
    assert code_revision("mnist") == before and before.keys() == {"commit"}


@pytest.mark.parametrize(
    "name", ["src/graftline/a.py", "src/graftline/new.py", "components/fit/new.py", "pipelines/new.py",
             "data/mnist/params.yaml", "data/mnist/expectations.yaml", "components/fit/page.html.j2", "dvc.yaml",
             "requirements.lock", "src/graftline/ui/static/icon.svg"],
)  # fmt: skip
def test_changed_and_new_code_parameters_and_locks_are(checkout: Path, name: str) -> None:
    before = code_revision("mnist")
    found = set()
    for text in ("two\n", "three\n"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
        revision = code_revision("mnist")
        assert revision["commit"] == before["commit"]
        found.add(revision["dirty"])
    assert len(found) == 2, "the digest is of the change"


def test_an_image_has_no_tasks_data(checkout: Path) -> None:
    (checkout / "data/mnist/params.yaml").write_text("two\n")
    assert "dirty" not in code_revision() and "dirty" in code_revision("mnist")


@pytest.mark.parametrize("name", ["components/Dockerfile", ".dockerignore"])
def test_what_an_image_is_built_by_is_its_code_and_no_tasks(checkout: Path, name: str) -> None:
    (checkout / name).write_text("two\n")
    assert "dirty" in code_revision() and "dirty" not in code_revision("mnist")


def test_a_checkout_in_a_folder_of_a_larger_repository_has_its_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "ml/src/graftline").mkdir(parents=True)
    (checkout / "ml/src/graftline/environment.py").write_text("one\n")
    monkeypatch.setattr("graftline.environment.ROOT", checkout / "ml")
    assert code_revision() == {}, "it was only installed there: the repository does not have it"
    subprocess.run(["git", "-C", checkout, "add", "-A"], check=True)
    head = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, check=True).stdout
    before = code_revision()
    assert before["commit"] == head.decode().strip() and "dirty" in before
    (checkout / "components/fit/b.py").write_text("two\n")
    assert code_revision() == before, "what lies beside the checkout is not its code"


@pytest.mark.parametrize(
    ("named", "revision"),
    [("a" * 40, {"commit": "a" * 40}), ("a" * 40 + "+" + SHA, {"commit": "a" * 40, "dirty": SHA})],
)
def test_an_image_says_which_commit_it_has_and_which_changes(
    monkeypatch: pytest.MonkeyPatch, named: str, revision: dict[str, str]
) -> None:
    monkeypatch.setenv("GRAFTLINE_COMMIT", named)
    assert code_revision() == revision


def test_a_stages_code_is_that_of_dvc_yaml_and_in_an_image_the_same(tmp_path: Path) -> None:
    """Whatever is loaded: a part that no process has loaded yet counts, one that dvc.yaml does not name does not."""
    image = tmp_path / "src"
    shutil.copytree(ROOT / "src/graftline", image / "graftline", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("components", "pipelines"):  # as components/Dockerfile lays them
        shutil.copytree(ROOT / folder, image / "graftline" / folder)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    code = "from graftline.environment import stage_code as c; print(c('pretrain'), c('evaluate'))"

    def digests(also: str = "pass") -> list[bytes]:
        done = subprocess.run(
            [sys.executable, "-c", f"{also}; {code}"],
            env=os.environ | {"PYTHONPATH": str(image)},
            capture_output=True,
            check=True,
        )
        return done.stdout.split()

    def edit(name: str) -> None:
        with (image / "graftline" / name).open("a") as file:
            file.write("# edited\n")

    before = digests()
    assert [digest.decode() for digest in before] == [stage_code("pretrain"), stage_code("evaluate")]
    assert digests("import graftline.pipelines.step, graftline.cli") == before
    edit("cli/run.py")
    edit("components/publish/publish.py")
    assert digests() == before
    edit("components/evaluate/evaluate.py")
    assert digests()[0] == before[0] and digests()[1] != before[1]
    edit("trunks/conv/trunk.py")
    assert digests()[0] != before[0]
