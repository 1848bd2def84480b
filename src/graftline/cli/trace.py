"""`graftline trace`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.tree import Tree

from graftline.cli.index import OUTPUTS, open_for_questions
from graftline.cli.shown import cell, terminal
from graftline.cli.stores import STORE
from graftline.lineage.run import RunHistory, account, told
from graftline.lineage.trace import Trace
from graftline.lineage.trace import trace as trace_model
from graftline.records.model import COMPARED
from graftline.score import DESCRIPTIONS

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRecord, Input
    from graftline.runs import Attempt

_FIGURES = 6
"""Metrics that the tree shows of a step; `--json` has all."""
_RAW_FILES = 20
"""Raw files that the tree names."""


def trace(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="task, task@alias, task@version, digest or folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object instead of a tree")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="show every parameter of each step")] = False,
    store: Annotated[str, STORE] = "",
    outputs: Annotated[list[Path] | None, OUTPUTS] = None,
) -> None:
    """Show what made a model: every step, its inputs to the raw files, code, image, parameters, metrics, trigger."""
    with open_for_questions(store, outputs) as index:
        found = trace_model(index, model)
    if as_json:
        print(json.dumps(as_dict(found), indent=2))
        return
    terminal().print(_tree(found, parameters))


def as_dict(found: Trace) -> dict[str, Any]:
    """Return a trace as JSON values."""
    value = asdict(found)
    for step in value["steps"]:
        step |= {"keyids": value["keyids"][step["sha256"]], "execution": value["executions"].get(step["sha256"], {})}
    del value["keyids"], value["executions"]
    value["run"] = found.run.as_dict() if found.run else None
    return value | {"commits": list(found.commits)}


def _tree(found: Trace, parameters: bool) -> Tree:
    tree = Tree(_heading(found), guide_style="dim")
    for line in _triggers(found):
        tree.add(line)
    if found.run is not None:
        _add_run(tree, found.run)
    for record in found.steps:
        _add_step(tree, found, record, parameters)
    if found.missing:
        branch = tree.add(_line("missing", "bold red"))
        for missing in found.missing:
            why = found.left_out.get(missing)
            where = f"in the store, and left out of the index: {why}" if why else "not in the store"
            branch.add(_line(f"record {missing}: {where}"))
    return tree


def _heading(found: Trace) -> Any:
    release = found.release
    if release is None:
        return _line(found.subject, "bold")
    named = f" ({', '.join(release.aliases)})" if release.aliases else ""
    return _line(f"{release.reference}{named}  content {release.content[:12]}  made {release.created}", "bold")


def _triggers(found: Trace) -> list[Any]:
    """Return the ledger's entries about it."""
    lines = []
    for entry in found.history:
        what = entry.event + (f" {entry.alias}" if entry.alias else "")
        lines.append(_line(f"{what} by {entry.actor} at {entry.at} (ledger entry {entry.sequence})"))
    return lines


def _add_run(tree: Tree, run: RunHistory) -> None:
    branch = tree.add(_line(f"run {run.id}: {run.state}", "bold"))
    if run.start is not None:
        start = run.start
        facts = {"commit": start.revision[:12], "pipeline": start.version, "key": start.key[:12]}
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        branch.add(_line(f"started by {run.reason or 'somebody who gave no reason'}; {known}"))
    for end in run.earlier:
        branch.add(_line(f"before it was tried again: {told(end)}"))
    for attempt in run.attempts:
        said = f": {attempt.line}" if attempt.line else ""
        branch.add(_line(f"{attempt.step} {attempt.number}: exit code {attempt.code}, {account(attempt)}{said}"))
    for name, source in run.cached.items():
        branch.add(_line(f"{name} from the cache: run {source.run} made it, record {source.record[:12]}"))
    if run.trouble and run.ends:
        branch.add(_line(run.trouble, "bold red"))


def _add_step(tree: Tree, found: Trace, record: IndexedRecord, parameters: bool) -> None:
    step = tree.add(
        _line(f"{record.name}  {record.content[:12]}  by {record.component} for {record.task}", "bold cyan")
    )
    step.add(_line(f"record {record.sha256[:12]}, {_signed(found.keyids.get(record.sha256, ()))}"))
    step.add(_line(_code(record)))
    if execution := found.executions.get(record.sha256):
        step.add(_line(_execution(execution)))
    elif found.run is not None and (made := found.run.makers.get(record.sha256)):
        step.add(_line(_made(made, found.run)))
    if record.environment:
        step.add(_line(", ".join(f"{name} {value}" for name, value in record.environment.items())))
    for given in record.inputs:
        _add_input(step, found, given)
    if record.metrics:
        shown = [(name, value) for name, value in record.metrics.items() if name not in DESCRIPTIONS]
        more = f" and {len(shown) - _FIGURES} more" if len(shown) > _FIGURES else ""
        step.add(_line(", ".join(f"{name} {_figure(value)}" for name, value in shown[:_FIGURES]) + more, "green"))
    if parameters:
        step.add(_line(json.dumps(record.parameters), "dim", limit=20_000))


def _add_input(step: Tree, found: Trace, given: Input) -> None:
    notes = ", ".join(f"{name} {value}" for name, value in given.annotations.items())
    if given.sha256 in found.compared and given.name == COMPARED:
        releases = ", ".join(found.compared[given.sha256]) or "a release that the store lacks"
        step.add(_line(f"compared with {releases}  {given.sha256[:12]}", "dim"))
        return
    origin = f", record {given.record[:12]}" if given.record else ", from outside"
    branch = step.add(_line(f"from {given.name}  {given.sha256[:12]}{origin}{'; ' + notes if notes else ''}"))
    for file in given.files[:_RAW_FILES]:
        branch.add(_line(f"{file.path}  {file.size:,} bytes  {file.sha256[:12]}", "yellow"))
    if len(given.files) > _RAW_FILES:
        branch.add(_line(f"and {len(given.files) - _RAW_FILES} more files (--json lists them)", "yellow"))


def _code(record: IndexedRecord) -> str:
    commit = f"commit {record.commit[:12]}" if record.commit else "no commit"
    dirty = f" with changes {record.dirty[:12]}" if record.dirty else ""
    image = f", image {record.image[:12]}" if record.image else ""
    return commit + dirty + image + (f", lock {record.lock[:12]}" if record.lock else "")


def _made(attempt: Attempt, run: RunHistory) -> str:
    """Return when and where the step ran on a cluster."""
    other = "" if attempt.run == run.id else f", in run {attempt.run}"
    return f"ran {attempt.started} for {account(attempt)}{other}"


def _execution(execution: dict[str, Any]) -> str:
    try:
        at = f"{datetime.fromtimestamp(execution['started'], UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"ran {at} for {execution['seconds']:.0f} s on {execution['host']} ({execution['engine']})"
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return "ran; its execution.json says nothing that can be read"


def _signed(keyids: tuple[str, ...]) -> str:
    return f"signed by {', '.join(key[:12] for key in keyids)} (not checked here)" if keyids else "no signature stored"


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _line(text: str, style: str = "", limit: int = 400) -> Any:
    return cell(text, style, limit)
