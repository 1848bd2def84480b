"""Which stages DVC is told of: those of one task, and whatever someone has added, but not those of other tasks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo, lock_repo
from dvc.stage.exceptions import StageNotFound

from graftline.engines.stages import narrow

SHIPPED = """\
stages:
  validate:
    foreach: [one, two]
    do:
      cmd: validate
      deps: ["data/${item}/raw"]
      outs: ["outputs/${item}/dataset"]
  publish:
    foreach: [one, two]
    do:
      cmd: publish
      deps: ["outputs/${item}/dataset"]
      outs: ["outputs/${item}/release"]
"""
OWN = "stages: {collect: {cmd: collect, outs: [../data/one/raw]}}\n"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    Repo.init(str(tmp_path)).close()
    (tmp_path / "dvc.yaml").write_text(SHIPPED)
    with Repo(str(tmp_path)) as repo, lock_repo(repo):
        yield repo


def put(repo: Any, name: str, text: str) -> None:
    path = Path(repo.root_dir, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def told(repo: Any) -> list[str]:
    """Return the stages that a run of task `one` knows."""
    narrow(repo, "one", Path(repo.root_dir, "outputs"))
    return sorted(f"{Path(stage.path).parent.name}/{stage.name}" for stage in repo.index.stages)


def test_the_stages_of_a_task_are_those_of_its_components(repo: Any) -> None:
    top = Path(repo.root_dir).name
    put(repo, "data/two/dvc.yaml", "metrics: ['${nothing}']\n")  # what DVC itself would stop at
    put(repo, "data/two/raw.dvc", "outs: [{path: raw}]\n")
    assert told(repo) == [f"{top}/publish@one", f"{top}/validate@one"]
    (publish,) = repo.stage.collect("publish@one")
    assert [stage.name for stage in repo.index.graph.successors(publish)] == ["validate@one"]
    with pytest.raises(StageNotFound):
        repo.stage.collect("publish@three")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prepare/dvc.yaml", OWN),
        ("dvc.yaml", f"{SHIPPED}  label: {{cmd: label, outs: [labels]}}\n"),
        ("dvc.yaml", f"{SHIPPED}  finetune: {{cmd: finetune, outs: [labels]}}\n"),
    ],
    ids=["elsewhere", "beside the others", "named like a component"],
)
def test_where_someone_has_added_a_stage_all_are_known(repo: Any, name: str, text: str) -> None:
    """It may need whatever another task makes."""
    put(repo, name, text)
    known = told(repo)
    assert len(known) == 5
    assert f"{Path(repo.root_dir).name}/publish@two" in known


@pytest.mark.parametrize("file", [".gitignore", ".dvcignore"])
def test_what_is_ignored_has_no_stages(repo: Any, file: str) -> None:
    put(repo, "build/dvc.yaml", OWN)
    put(repo, file, "/build/\n")
    repo._reset()  # what it knows of that file
    assert not [name for name in told(repo) if "collect" in name]


@pytest.mark.parametrize("theirs", ["outputs/two/release", "outputs"])
def test_where_a_task_needs_anothers_output_all_stages_are_known(repo: Any, theirs: str) -> None:
    top = Path(repo.root_dir).name
    put(repo, "dvc.yaml", SHIPPED.replace('"data/${item}/raw"', f'"data/${{item}}/raw", {theirs}', 1)
        .replace("foreach: [one, two]", "foreach: [one]", 1))  # fmt: skip
    assert told(repo) == [f"{top}/publish@one", f"{top}/publish@two", f"{top}/validate@one"]


def test_where_tasks_make_something_outside_their_folders_all_stages_are_known(repo: Any) -> None:
    more = SHIPPED.replace('outs: ["outputs/${item}/release"]', 'outs: ["outputs/${item}/release", "shared/${item}"]')
    put(repo, "dvc.yaml", more.replace('"data/${item}/raw"', '"data/${item}/raw", shared/two', 1)
        .replace("foreach: [one, two]", "foreach: [one]", 1))  # fmt: skip
    assert len(told(repo)) == 3
