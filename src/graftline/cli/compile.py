"""`graftline compile`: the Kubeflow pipeline as IR YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compile_pipeline(
    task: Annotated[str | None, typer.Argument(help="fill in this task's parameters as the defaults")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="default: build/TASK.yaml")] = None,
) -> None:
    """Write the Kubeflow pipeline as IR YAML, the same bytes on every call."""
    from graftline.environment import ROOT
    from graftline.pipelines.compile import compile_task

    path = out or ROOT / "build" / f"{task or 'retrain'}.yaml"
    compile_task(task, path)
    typer.echo(f"wrote {path}")
