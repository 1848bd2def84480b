"""`graftline compile`: the Kubernetes manifests of the tasks' pipelines, which the repository holds."""

from __future__ import annotations

import os
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer

from graftline.durable import write_atomic
from graftline.environment import ROOT
from graftline.pipelines.compile import FOLDER, compiled
from graftline.tasks.documents import listed_tasks


def compile_pipeline(
    task: Annotated[str | None, typer.Argument(help="the task; every task of data/tasks.yaml if left out")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; print what is out of date and exit with 1")
    ] = False,
) -> None:
    """Write pipelines/compiled/TASK.yaml: the Kubeflow pipeline as Kubernetes manifests, the same bytes on every call.

    The PipelineVersion is named by its content. Compile again after a change of the pipeline, of profiles or settings,
    of a task's parameters or of images.lock.
    """
    known = listed_tasks()
    stale = _without_task(FOLDER, known) if task is None else []
    differences = 0
    for name in [task] if task else known:
        path = FOLDER / f"{name}.yaml"
        shown = os.path.relpath(path, ROOT)
        manifest = compiled(name).manifest
        current = path.read_bytes() if path.is_file() else b""
        if current == manifest:
            typer.echo(f"{shown} is up to date")
        elif check:
            differences += 1
            typer.echo(_difference(current, manifest, shown), nl=False)
        else:
            write_atomic(path, manifest)
            typer.echo(f"wrote {shown}")
    for path in stale:
        typer.echo(f"{os.path.relpath(path, ROOT)}: no such task" + ("" if check else "; removed"))
        if not check:
            path.unlink()
    if check and (differences or stale):
        typer.echo("out of date: run `graftline compile`", err=True)
        raise typer.Exit(1)


def _without_task(folder: Path, known: list[str]) -> list[Path]:
    """Return the manifests of tasks that are gone."""
    return [path for path in sorted(folder.glob("*.yaml")) if path.stem not in known]


def _difference(current: bytes, wanted: bytes, name: str) -> str:
    lines = unified_diff(
        current.decode().splitlines(keepends=True),
        wanted.decode().splitlines(keepends=True),
        f"{name} (committed)",
        f"{name} (compiled)",
    )
    return "".join(lines)
