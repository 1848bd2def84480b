"""`graftline verify`: has anything in a store changed since it was signed?"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from graftline.audit.verify.verifying import Finding, Options, Verdict
from graftline.audit.verify.verifying import verify as verify_store
from graftline.cli.anchors import CHECKPOINT, KEY, read_checkpoints
from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.component import from_os_error
from graftline.errors import GraftlineError, InputError
from graftline.learning.progress import Progress

_SHOWN = 200


def verify(
    model: Annotated[
        str | None, typer.Argument(help="task@version or task@alias; everything in the store if left out")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="everything in the store, the default")] = False,
    sample: Annotated[
        float | None, typer.Option("--sample", metavar="FRACTION", help="read this share of files and shards only")
    ] = None,
    seed: Annotated[str, typer.Option("--seed", help="which ones; printed, so that they can be read again")] = "",
    checkpoint: Annotated[list[str] | None, CHECKPOINT] = None,
    key: Annotated[str, KEY] = "",
    resume: Annotated[bool, typer.Option("--resume", help="do not hash again what an interrupted run has")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Re-hash bytes, check signatures, the chain of records, the ledger and aliases; say what differs, and how.

    Exits with 0 if all is whole (what was erased with a receipt is), 1 if something is not, 2 if it could not tell.
    """
    try:
        found = _verify(model, everything, verify_options(checkpoint or [], key, sample, seed, resume=resume), store)
    except GraftlineError as error:  # the store did not answer: that says nothing about what it holds
        raise error if isinstance(error, InputError) else _untold(error) from None
    except OSError as error:
        raise _untold(from_os_error(error)) from None
    found.check_there()
    if as_json:
        print(json.dumps(asdict(found) | {"whole": found.whole}, indent=2))
    else:
        show(found)
    if not found.whole:
        raise typer.Exit(1)


def _untold(error: Exception) -> Exception:
    return InputError("verify", f"could not tell: {error}")


def _verify(model: str | None, everything: bool, options: Options, store: str) -> Verdict:
    if model and everything:
        raise InputError("--all", f"and the release {model}", expected="one or the other")
    opened = open_given(store)
    if opened.local_path("ledger") is not None and not Path(opened.url).is_dir():
        raise InputError(opened.url, "no such store", expected="a directory or s3://bucket/prefix")
    return verify_store(opened, model or None, options)


def verify_options(
    checkpoints: list[str], key: str, sample: float | None = None, seed: str = "", *, resume: bool = False
) -> Options:
    """Return how to verify, as a command was told. Raises InputError."""
    if sample is not None and not 0 < sample <= 1:
        raise InputError("--sample", str(sample), expected="a fraction above 0 and at most 1")
    if key and not re.fullmatch("[0-9a-f]{16,64}", key):
        raise InputError("--key", repr(key), expected="at least the first 16 hexadecimal digits of a key's id")
    kept, bar = read_checkpoints(checkpoints), _Progress()
    options = Options(kept, key or None, sample, resume=resume, progress=bar)
    return options if not seed else Options(kept, key or None, sample, seed, resume=resume, progress=bar)


class _Progress:
    """Megabytes done, their rate and the time left, made on first use: a small store needs no bar."""

    def __init__(self) -> None:
        self._bar: object = None
        self._began, self._now = monotonic(), monotonic

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            if self._now() - self._began < 1.0 and done < total:
                return
            if total < 64 << 20:
                return
            self._bar = Progress("verify", total >> 20, "MB")
        assert isinstance(self._bar, Progress)
        if done == total:
            self._bar.show(done >> 20)
            self._bar.close()
            self._bar = None
        elif self._bar.due():
            self._bar.show(done >> 20)


def show(found: Verdict) -> None:
    """Print a table of what was found, and one line that sums it up."""
    console = terminal()
    if found.findings:
        listed = table("what", "where", "expected", "found", grid=True)
        for finding in found.findings[:_SHOWN]:
            style = "dim" if finding.kind == "erased" else "red"
            expected, actual = cell(finding.expected), cell(finding.actual)
            listed.add_row(cell(finding.kind, style), cell(_where(finding)), expected, actual)
        console.print(listed)
        if len(found.findings) > _SHOWN:
            console.print(f"and {len(found.findings) - _SHOWN} more (--json lists all)")
    for line in _notes(found):
        console.print(cell(line, limit=500), soft_wrap=True)
    console.print(cell(summary(found), "bold green" if found.whole else "bold red", limit=500), soft_wrap=True)


def _where(finding: Finding) -> str:
    parts = [f"step {finding.step}" if finding.step else "", f"rows: {finding.row}" if finding.row else ""]
    said = ", ".join(part for part in parts if part)
    return f"{finding.place} ({said})" if said else finding.place


def _notes(found: Verdict) -> list[str]:
    notes = [f"the ledger is vouched for: {anchor}" for anchor in found.anchors]
    if found.seed:
        notes.append(f"a sample: {found.sampled_out} files were not read (--seed {found.seed} chooses the same)")
    if found.resumed:
        notes.append(f"{found.resumed} files were hashed by the interrupted run")
    if found.form_only:
        notes.append(f"{found.form_only} notes of runs carry no signature: only their form was checked")
    return notes


def summary(found: Verdict) -> str:
    """Return the verdict in one line."""
    counts = Counter(finding.kind for finding in found.findings)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing differs"
    size = f"{found.objects} objects, {found.bytes / 1e6:,.1f} MB hashed in {found.seconds:.1f} s"
    return f"{'whole' if found.whole else 'NOT WHOLE'}: {found.store} ({found.scope}): {said}; {size}"
