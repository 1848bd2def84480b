"""`graftline erase`: forget a row or a person, and prove it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from graftline.audit.erase.erasing import ErasurePlan, Target
from graftline.audit.erase.erasing import erase as carry_out
from graftline.audit.erase.plan import make_plan
from graftline.audit.erase.stored import stored_plan
from graftline.audit.raw_row import digests_by_task, task_contracts
from graftline.cli.shown import cell, terminal
from graftline.cli.stores import STORE, open_given
from graftline.errors import InputError
from graftline.rows.subjects import hash_subject, load_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graftline.values.contract import Contract


def erase(
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="ID", help="a person's id, as in the column that is the subject")
    ] = None,
    row: Annotated[
        Path | None,
        typer.Option(
            "--row",
            metavar="FILE",
            help="a row: a JSON object of its columns; or a picture or text file, what a model sees",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan, or with --yes the receipt, as JSON")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Remove a row or a person's rows from data, caches and indices, keep them out, and mark every model.

    Lists what it will touch first, and asks. Killed half-way, the same command goes on. Exit codes: 0 done or nothing
    found, 2 bad input, 1 not confirmed or failed.
    """
    from graftline.environment import ROOT

    if (subject is None) == (row is None):
        raise InputError("graftline erase", "--subject and --row", expected="one of them")
    opened = open_given(store)
    contracts = task_contracts(ROOT)
    kind, target, wanted = _wanted(subject, row, contracts)
    known = stored_plan(opened, kind, target)
    plan = known or make_plan(opened, ROOT, kind, target, wanted, contracts)
    if plan.empty:
        print(json.dumps(asdict(plan)) if as_json else "nothing of it is in the row index or in the raw data here")
        return
    if not as_json:
        _show(plan, known is not None)
    elif not yes:
        print(json.dumps(asdict(plan), indent=2))
        return
    if not yes and not typer.confirm("Remove all of this? It cannot be undone"):
        raise typer.Exit(1)

    def say(line: str) -> None:
        print(f"erase: {line}", file=sys.stderr, flush=True)

    receipt = carry_out(opened, ROOT, plan, wanted, contracts, on_event=say)
    print(json.dumps(receipt, indent=2)) if as_json else _show_receipt(receipt)


def _wanted(subject: str | None, row: Path | None, contracts: Mapping[str, Contract]) -> tuple[str, list[str], Target]:
    if subject is not None:
        key = load_key(create=False)
        hashed = hash_subject(subject, key)
        return "subject", [hashed.hex()], Target(subject=hashed, key=key)
    assert row is not None
    digests = {digest for found in digests_by_task(row, contracts).values() for digest in found}
    return "row", sorted(digest.hex() for digest in digests), Target(frozenset(digests))


def _show(plan: ErasurePlan, begun: bool) -> None:
    console = terminal()
    if begun:
        console.print(f"an erasure of this was begun at {plan.at}; it goes on as planned then")
    lines: list[tuple[str, Any]] = [
        ("rows in the raw data", sum(file["rows"] for file in plan.raw if file["version"] is None)),
        ("raw files in old versions", sum(1 for file in plan.raw if file["version"])),
        ("datasets", len(plan.datasets)),
        ("places in the row index", len(plan.hits)),
        ("objects in DVC's cache and remote", len(plan.objects)),
        ("outputs to delete", ", ".join(plan.outputs) or 0),
        ("trunks and models made with them", len(plan.models)),
        ("releases to mark", ", ".join(_named(release) for release in plan.releases) or 0),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in lines:
        table.add_row(name, cell(value, limit=1000))
    console.print(table)
    for line in plan.not_covered:
        console.print(cell(f"not covered: {line}", limit=2000))


def _named(release: Mapping[str, Any]) -> str:
    aliases = f" ({', '.join(release['aliases'])})" if release["aliases"] else ""
    return f"{release['task']}@{release['version']}{aliases}"


def _show_receipt(receipt: Mapping[str, Any]) -> None:
    console = terminal()
    console.print(cell(f"erased; the receipt is erasures/{receipt['id']}.json in the store"))
    console.print("commit data/*/raw.dvc, data/*/expectations.yaml and data/store, then train again:")
    for command in receipt["retrain"]:
        console.print(cell(f"  {command}"))
    for line in receipt["not_covered"]:
        console.print(cell(f"not covered: {line}", limit=2000))
