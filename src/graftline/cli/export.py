"""`graftline export [MODEL] --format F`: a release in the forms that other tools read."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from graftline.cli.stores import STORE, open_given
from graftline.durable import write_atomic
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.exports import croissant, mlbom, openlineage, prov, slsa
from graftline.exports.datasheet import read_datasheet
from graftline.exports.facts import Facts, read_facts
from graftline.exports.mlflow import write_runs
from graftline.exports.openlineage import events, send
from graftline.releases.catalogue import list_releases, resolve


class Format(StrEnum):
    """What `--format` takes."""

    OPENLINEAGE = "openlineage"
    SLSA = "slsa"
    MLBOM = "mlbom"
    PROV = "prov"
    CROISSANT = "croissant"
    MLFLOW = "mlflow"


SUFFIXES = {
    Format.OPENLINEAGE: ".openlineage.jsonl",
    Format.SLSA: ".intoto.jsonl",
    Format.MLBOM: ".cdx.json",
    Format.PROV: ".prov.json",
    Format.CROISSANT: ".croissant.json",
}


def export(
    form: Annotated[Format, typer.Option("--format", help="what to write")],
    model: Annotated[str | None, typer.Argument(help="task@version or task@alias; every release if left out")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE|DIR", help="where to; a folder for mlflow and for many releases"),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="send OpenLineage events there by HTTP POST")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print what was written as a JSON object")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Write a release's lineage in a form that other tools read (docs/exports.md)."""
    if to and form is not Format.OPENLINEAGE:
        raise InputError("--to", f"given with --format {form}", expected="--format openlineage", fix="give -o")
    if not out and not to:
        raise InputError("-o", "not given", expected="a file or a folder", fix="say where to write")
    opened = open_given(store)
    found = list_releases(opened) if model is None else [resolve(opened, model)]
    if not found:
        raise InputError(opened.url, "no releases", fix="make one with `graftline run TASK`")
    facts = [read_facts(opened, release) for release in found]
    written = _write(form, facts, out) if out else []
    sent = _send(facts, to) if to else 0
    _tell(form, facts, written, sent, as_json)


def _write(form: Format, facts: list[Facts], out: Path) -> list[Path]:
    """Write a file, or a folder with one a release; return the paths."""
    if form is Format.MLFLOW:
        write_runs(out, facts)
        return [out]
    many = len(facts) > 1 or out.is_dir()
    if many and out.exists() and not out.is_dir():
        raise InputError("-o", f"{out} is a file", expected="a folder: there are many releases", fix="name one")
    named = {
        out / f"{one.release.task}-{one.release.version}{SUFFIXES[form]}" if many else out: _content(form, one)
        for one in facts
    }
    for path, data in named.items():
        write_atomic(path, data)
    return list(named)


def _content(form: Format, facts: Facts) -> bytes:
    if form is Format.OPENLINEAGE:
        return openlineage.lines(openlineage.events(facts))
    if form is Format.SLSA:
        return slsa.bundle(facts)
    if form is Format.MLBOM:
        return mlbom.bom(facts)
    if form is Format.PROV:
        return prov.document([facts])
    return croissant.metadata(facts, read_datasheet(facts, ROOT))


def _send(facts: list[Facts], to: str) -> int:
    listed = track(facts, "sending", console=Console(stderr=True), disable=len(facts) < 3)
    return send((event for one in listed for event in events(one)), to)


def _tell(form: Format, facts: list[Facts], written: list[Path], sent: int, as_json: bool) -> None:
    if as_json:
        value = {
            "format": str(form),
            "releases": [one.release.name for one in facts],
            "written": [str(path) for path in written],
            "sent": sent,
        }
        print(json.dumps(value, indent=2))
        return
    names = facts[0].release.name if len(facts) == 1 else f"{len(facts)} releases"
    for path in written if len(written) < 10 else []:
        print(f"{form} of {names}: {path}")
    if len(written) >= 10:
        print(f"{form} of {names}: {len(written)} files in {written[0].parent}")
    if sent:
        print(f"{form} of {names}: {sent} events sent")
