"""Which of a repository's stages a run of one task needs. DVC by itself would load those of all tasks, and each
pointer and parameters file in the work tree: a third of a run in which nothing has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftline.tasks.parameters import COMPONENTS


def narrow(repo: Any, task: str, outputs: Path) -> None:
    """Have DVC know only the stages of `task`, until it lets go of its lock.

    Where someone has added a stage, wherever its dvc.yaml lies, or has let tasks share outputs, DVC knows them all:
    only the whole graph tells then what is needed. Pointers (.dvc files) have nothing to run.

    Args:
        repo: DVC's, whose lock is held.
        task: whose stages are run.
        outputs: the folder that holds a folder of outputs for each task.
    """
    from dvc.repo.index import Index

    stages = _stages(repo, task)
    if stages is None:
        return
    own = outputs / task
    needs = [Path(dep.fs_path) for stage in stages for dep in stage.deps]
    makes = [Path(out.fs_path) for stage in stages for out in stage.outs]
    if any(path.is_relative_to(outputs) and not path.is_relative_to(own) for path in needs):
        return
    if not all(path.is_relative_to(own) for path in makes):  # so may be what other tasks make
        return
    named, collect = {stage.addressing: stage for stage in stages}, repo.stage.collect

    def collect_known(target: str, **how: Any) -> Any:
        return [named[target]] if target in named else collect(target, **how)

    repo.index, repo.stage.collect = Index(repo, stages), collect_known


def _stages(repo: Any, task: str) -> list[Any] | None:
    """Return the stages of a task; None where there are others than those that each task has."""
    from dvc.dvcfile import ProjectFile

    found = []
    for path in _project_files(repo):
        stages = ProjectFile(repo, str(path)).stages
        for name in stages:
            component, _, of = name.partition("@")
            if path.parent != Path(repo.root_dir) or component not in COMPONENTS or not of:
                return None
            if of == task:
                found.append(stages[name])
    return found


def _project_files(repo: Any) -> Iterator[Path]:
    """Find each dvc.yaml that has stages, where DVC looks for them."""
    from dvc.dvcfile import PROJECT_FILE

    for folder, folders, files in repo.dvcignore.walk(repo.fs, repo.root_dir, followlinks=False):
        path, there = Path(folder, PROJECT_FILE), set(files)
        if PROJECT_FILE in there and b"stages" in path.read_bytes() and not repo.scm.is_ignored(str(path)):
            yield path
        folders[:] = [
            name for name in folders if f"{name}.dvc" not in there and not repo.scm.is_ignored(f"{folder}/{name}/")
        ]
