"""`graftline diff A B`: what made two models differ, and what it did to the metrics."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from graftline.cli.shown import cell, plain, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.environment import ROOT
from graftline.lineage.diff import Difference
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
    causes = table("step", "cause", "what", cell(found.a), cell(found.b), grid=True)
    for cause in found.causes:
        before, after = _side(cause.before), _side(cause.after)
        causes.add_row(cell(cause.step), cell(cause.kind), cell(cause.name), cell(before), cell(after))
        for detail in cause.details[:_SHOWN_DETAILS]:
            name, before, after = plain(detail.name), _side(detail.before), _side(detail.after)
            causes.add_row("", "", cell(f"  {name}"), cell(before), cell(after))
        if len(cause.details) > _SHOWN_DETAILS:
            causes.add_row("", "", f"  and {len(cause.details) - _SHOWN_DETAILS} more (--json lists all)")
    console.print(causes)


def _side(value: object) -> str:
    """Return a value for the table: digests by their first twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b", r"\1", plain(value)) if value is not None else "-"


def _show_metrics(console: Console, metrics: tuple[MetricChange, ...]) -> None:
    changes = table("metric", "before", "after", "change", "95% interval", "", grid=True)
    for column in changes.columns[1:-1]:
        column.justify = "right"
    for change in metrics:
        interval = f"{change.low:+.4f} to {change.high:+.4f}" if change.low is not None else ""
        sure = ("significant", *([change.verdict] if change.verdict else [])) if change.significant else ()
        said = ", ".join((*sure, *([change.method] if change.method else [])))
        before, after, difference = _number(change.before), _number(change.after), _number(change.difference, "+")
        changes.add_row(cell(change.name), before, after, difference, interval, said)
    console.print()
    console.print(changes)


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}d}" if isinstance(value, int) else f"{value:{sign}.4f}"
