"""`graftline diff A B`: what made two models differ, and what it did to the metrics."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from graftline.cli.shown import cell, plain, terminal
from graftline.cli.stores import STORE, open_given
from graftline.environment import ROOT
from graftline.lineage.diff import Cause, Difference
from graftline.lineage.diff import diff as compare

if TYPE_CHECKING:
    from rich.console import Console

    from graftline.lineage.diff_metrics import MetricChange

_SHOWN_DETAILS = 30


def diff(
    a: Annotated[str, typer.Argument(help="task@version or task@alias, such as glosses@1")],
    b: Annotated[str, typer.Argument(help="another one")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """List the causes of the difference between two models, each once, at the step where it begins."""
    found = compare(open_given(store), a, b, ROOT)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        show(found)


def show(found: Difference) -> None:
    console = terminal()
    _show_causes(console, found)
    if found.metrics:
        _show_metrics(console, found.metrics)
    notes = [f"{cause.step}, {cause.name}: {cause.note}" for cause in found.causes if cause.note]
    for note in (*notes, *found.notes):
        console.print(cell(f"note: {note}", limit=1000))


def _show_causes(console: Console, found: Difference) -> None:
    if not found.causes:
        console.print(cell(f"{found.a} and {found.b}: no cause of a difference"))
        return
    table = Table("step", "cause", "what", box=None, pad_edge=False)
    table.add_column(cell(found.a))
    table.add_column(cell(found.b))
    for cause in found.causes:
        before, after = _side(cause.before), _side(cause.after)
        table.add_row(cell(cause.step), cell(cause.kind), cell(cause.name), cell(before), cell(after))
        _add_details(table.add_row, cause)
    console.print(table)


def _add_details(add_row: object, cause: Cause) -> None:
    assert callable(add_row)
    for detail in cause.details[:_SHOWN_DETAILS]:
        add_row("", "", cell(f"  {plain(detail.name)}"), cell(_side(detail.before)), cell(_side(detail.after)))
    if len(cause.details) > _SHOWN_DETAILS:
        add_row("", "", f"  and {len(cause.details) - _SHOWN_DETAILS} more (--json lists all)")


def _side(value: object) -> str:
    """Return a value for the table: digests by their first twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b", r"\1", plain(value)) if value is not None else "-"


def _show_metrics(console: Console, metrics: tuple[MetricChange, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "before", "after", "change", "95% interval", ""):
        table.add_column(name, justify="left" if name in ("metric", "") else "right")
    for change in metrics:
        interval = f"{change.low:+.4f} to {change.high:+.4f}" if change.low is not None else ""
        sure = ("significant", *([change.verdict] if change.verdict else [])) if change.significant else ()
        said = ", ".join((*sure, *([change.method] if change.method else [])))
        table.add_row(
            cell(change.name),
            _number(change.before),
            _number(change.after),
            _number(change.difference, "+"),
            interval,
            said,
        )
    console.print()
    console.print(table)


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}d}" if isinstance(value, int) else f"{value:{sign}.4f}"
