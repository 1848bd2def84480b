"""`graftline reproduce MODEL`: make a release again and compare bit by bit."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftline.audit.reproduce.reproducing import reproduce as make_again
from graftline.cli.anchors import CHECKPOINT, KEY
from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, Release, open_given
from graftline.cli.verify import verify_options
from graftline.durable import write_atomic
from graftline.errors import EXIT_INPUT, InputError

if TYPE_CHECKING:
    from graftline.audit.reproduce.verdict import Reproduction

EXIT_DIVERGED = 1
"""Also of a release that is not sound."""


def reproduce(
    model: Release,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="go on although code, packages or machine are not those recorded; the verdict names each difference",
        ),
    ] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="a new folder for what is made; it is kept")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="write the signed verdict (a DSSE envelope) there")
    ] = None,
    checkpoint: Annotated[list[str] | None, CHECKPOINT] = None,
    key: Annotated[str, KEY] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the signed verdict instead of a table")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Make a release again in a clean checkout of its commit, and say whether the bits are the same.

    The release and all that it came from are verified first. Exit codes: 0 identical, or within the released intervals
    on another machine; 1 diverged, or the release is not sound; 2 it cannot be done here, and why.
    """
    if keep is not None and keep.exists():
        raise InputError("--keep", f"{keep} exists", expected="a new folder")
    with tempfile.TemporaryDirectory(prefix="graftline-reproduce-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)

        def say(line: str) -> None:
            print(f"reproduce: {line}", file=sys.stderr, flush=True)

        options = replace(verify_options(checkpoint or [], key), keep_state=False)
        result = make_again(open_given(store), model, folder.resolve(), anyway=anyway, options=options, on_event=say)
        sealed = result.sealed()
        if out is not None:
            write_atomic(out, sealed + b"\n")
        print(sealed.decode()) if as_json else _show(result)
    if result.verdict in ("diverged", "not sound"):
        raise typer.Exit(EXIT_DIVERGED)
    if result.verdict == "impossible":
        raise typer.Exit(EXIT_INPUT)


def _show(result: Reproduction) -> None:
    console = terminal()
    if result.steps:
        steps = table("step", "recorded", "made again", "", "seconds", grid=True)
        for step in result.steps:
            found = step.found[:12] if step.found else "not at hand"
            same = "identical" if step.same else "different: " + (", ".join(step.differing) or "content")
            seconds = f"{step.seconds:.1f}" if step.seconds else ""
            steps.add_row(step.name, cell(step.recorded[:12]), found, cell(same), seconds)
        console.print(steps)
    for metric in result.metrics:
        where = "within" if metric.within else "OUTSIDE"
        console.print(cell(f"{metric.name}: {metric.found:.4f}, {where} {metric.low:.4f} to {metric.high:.4f}"))
    for line in result.reasons if result.verdict == "impossible" else [*result.reasons, *result.conditions]:
        console.print(cell(line, limit=1000))
    if result.verdict == "impossible" and result.conditions:
        console.print("--anyway goes on, and the verdict names these differences")
    at = f", first at {result.first}" if result.first else ""
    console.print(f"{result.release}: {result.verdict}{at}", style="bold")
