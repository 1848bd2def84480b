"""Which of a repository's stages a run of one task may need. DVC by itself would load those of all tasks, and each
pointer and parameters file in the work tree: a third of a run in which nothing has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftline.tasks.parameters import COMPONENTS


def narrow(repo: Any, task: str, outputs: Path) -> None:
    """Have DVC know only the stages that a run of `task` may need, until it lets go of its lock.

    They are those of the task, and any that someone has added, wherever its dvc.yaml lies. Pointers (.dvc files) have
    nothing to run.

    Args:
        repo: DVC's, whose lock is held.
        task: whose stages are run.
        outputs: the folder that holds a folder of outputs for each task.
    """
    from dvc.repo.index import Index

    stages = list(_stages(repo, task))
    theirs = [dep for stage in stages for dep in stage.deps if _of_another(dep.fs_path, outputs, task)]
    if theirs:  # someone has let tasks depend on one another
        return
    named, collect = {stage.addressing: stage for stage in stages}, repo.stage.collect

    def collect_known(target: str, **how: Any) -> Any:
        return [named[target]] if target in named else collect(target, **how)

    repo.index, repo.stage.collect = Index(repo, stages), collect_known


def _of_another(path: str, outputs: Path, task: str) -> bool:
    return path.startswith(f"{outputs}{os.sep}") and Path(path).relative_to(outputs).parts[0] != task


def _stages(repo: Any, task: str) -> Iterator[Any]:
    from dvc.dvcfile import ProjectFile

    for path in _project_files(repo):
        stages = ProjectFile(repo, str(path)).stages
        for name in stages:
            component, _, of = name.partition("@")
            shipped = path.parent == Path(repo.root_dir) and component in COMPONENTS
            if not shipped or of == task:
                yield stages[name]


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
