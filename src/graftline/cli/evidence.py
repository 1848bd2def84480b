"""`graftline evidence MODEL -o FILE.zip`: all that an outsider needs to check where a model came from."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from graftline.audit.evidence.writing import Written, write_evidence
from graftline.cli.anchors import read_checkpoints
from graftline.cli.shown import cell, terminal
from graftline.cli.stores import STORE, Release, open_given
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.releases.catalogue import resolve
from graftline.signing.keyring import load_keyring


def evidence(
    model: Release,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.zip", help="where to write it")],
    with_model: Annotated[
        bool, typer.Option("--with-model", help="put the model's own bytes in too; else only their digests")
    ] = False,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint", metavar="TEXT|FILE", help="one that was kept: prove that the ledger only grew since"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print what was written as a JSON object")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Write one file with records, proofs, model card and data sheet, and a verifier that needs no Graftline."""
    if out.is_dir():
        raise InputError("-o", f"{out} is a folder", expected="a file", fix="give a name such as evidence.zip")
    opened = open_given(store)
    written = write_evidence(
        opened,
        resolve(opened, model),
        out,
        load_keyring().signer(),
        checkout=ROOT,
        with_model=with_model,
        kept=list(read_checkpoints(checkpoint or []).values()),
        progress=_progress,
    )
    if as_json:
        points = {point["point"]: point["coverage"] for point in written.index["annex_iv"]}
        value = {
            "path": str(written.path),
            "sha256": written.sha256,
            "verifier": written.verifier,
            "key": written.key,
            "key_known": written.is_known,
            "ledger": written.index["ledger"],
            "annex_iv": points,
        }
        print(json.dumps(value, indent=2))
    else:
        _tell(written)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"evidence: {line}", file=sys.stderr, flush=True)


def _tell(written: Written) -> None:
    """Print what the outsider must get by another way than the file: fingerprints."""
    counted = Counter(point["coverage"] for point in written.index["annex_iv"])
    stranger = "" if written.is_known else ", which the ledger does not know"
    rows = {
        "file": written.path,
        "sha256": written.sha256,
        "verify.py, sha256": written.verifier,
        "the ledger's first key": written.index["ledger"]["first_key"],
        "signed by key": written.key + stranger,
        "Annex IV": ", ".join(f"{count} points {name}" for name, count in counted.items()),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, cell(value))
    terminal().print(table)
    print(f"Check it anywhere: python verify.py {written.path.name} --key {written.key}")
