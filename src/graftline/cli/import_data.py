"""`graftline import`: make a shipped task's raw data again from its public source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graftline.digests import sha256_file
from graftline.environment import ROOT
from graftline.errors import InputError, nearest
from graftline.importers import (
    debian,
    emoji,
    glosses,
    help_pages,
    mnist,
    prompts,
    questions,
    scenes,
    strengths,
    trees,
    turkish,
    voices,
)


def import_data(
    task: Annotated[str, typer.Argument(help="the task whose raw data to make, such as mnist")],
    out: Annotated[Path | None, typer.Option(help="the folder to write (default: data/TASK/raw)")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="the source, already fetched; then no network is needed")
    ] = None,
) -> None:
    """Make a task's raw data from its public source; equal bytes on every run."""
    importers = {
        "emoji": emoji.write,
        "glosses": glosses.write,
        "help": help_pages.write,
        "mnist": mnist.write,
        "packages": debian.write,
        "prompts": prompts.write,
        "questions": questions.write,
        "scenes": scenes.write,
        "strengths": strengths.write,
        "trees": trees.write,
        "turkish": turkish.write,
        "voices": voices.write,
    }
    if task not in importers:
        raise InputError(
            "import", f"no importer for '{task}'{nearest(task, list(importers))}", expected=", ".join(importers)
        )
    path = importers[task](out or ROOT / "data" / task / "raw", source)
    typer.echo(f"{path}  {path.stat().st_size:,} bytes  sha256 {sha256_file(path)}")
