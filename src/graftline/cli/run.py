"""`graftline run TASK`: bring a task's release up to date with its data, code and parameters."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from graftline.canonical import read_json
from graftline.cli.shown import terminal
from graftline.cli.stores import STORE, Task, address
from graftline.durable import exclusive, write_atomic
from graftline.engines import containers, local
from graftline.engines.local import StageError, StageRun
from graftline.errors import EXIT_REFUSED
from graftline.lift_names import lift_counts
from graftline.releases.catalogue import list_releases
from graftline.releases.layout import CHAMPION
from graftline.store.opening import open_store
from graftline.tasks.assignments import parse_assignments
from graftline.tasks.documents import assign, parameter_models, task_document, task_parameters
from graftline.tasks.parameters import load_document, section

if TYPE_CHECKING:
    from graftline.store import Store

REFUSED = "refused"


def run(
    task: Task,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="first change a value in the task's params.yaml: finetune.learning_rate=0.002; repeatable",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="run every stage, even where nothing has changed")] = False,
    engine: Annotated[
        Literal["dvc", "docker"],
        typer.Option(
            help="dvc: each stage as a process, what has not changed is skipped; "
            "docker: the Kubeflow pipeline in the images that `make images` built, with a cache as a cluster has"
        ),
    ] = "dvc",
    store: Annotated[str, STORE] = "",
) -> None:
    """Bring a task's release up to date with its data, code and parameters, skipping what has not changed.

    Exit codes: 0 done, 2 bad input, 3 the gate refused the release, 75 try again (another run is at work here, or this
    one was stopped), 130 interrupted, 1 anything else.
    """
    started = time.perf_counter()
    params = task_parameters(task)
    store_url = address(store)
    outputs = (containers if engine == "docker" else local).OUTPUTS / task
    changes = parse_assignments(assignments or [])
    task_document(task, changes)  # checked before anything is written
    with exclusive(outputs, what=f"`graftline run {task}`"):
        if changes:
            _write_parameters(params, changes)
        if local.pull_raw(task):
            terminal().print(f"data/{task}/raw was another version than raw.dvc names; that one was checked out")
        stages = (
            _run_in_containers(task, store_url) if engine == "docker" else _run_stages(task, params, store_url, force)
        )
        page = _report(outputs, store_url, stages)
        _summary(outputs, stages, time.perf_counter() - started, page)
    if stages[-1].state == REFUSED:
        raise typer.Exit(EXIT_REFUSED)


def _write_parameters(path: Path, changes: dict[str, Any]) -> None:
    """Make the changes in the file, comments kept."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    text = path.read_text(encoding="utf-8")
    document = parse_yaml_for_update(text, path)
    assign(document, changes)
    changed = dumps_yaml(document)
    if changed != text:
        write_atomic(path, changed.encode())


def _run_stages(task: str, params: Path, store_url: str, force: bool) -> list[StageRun]:
    """Run what has changed; return what became of each stage. Exits with a failed component's exit code."""
    events: dict[str, str] = {}

    def show(stage: str, event: str) -> None:
        events[stage] = event
        if event == "ran":
            terminal().rule(f"{stage} {task}", align="left", style="dim")

    def check(stage: str) -> None:
        if stage == "pretrain":
            _check_label_counts(local.output_folder(task, "validate"), params)

    receipt = local.output_folder(task, "publish")
    try:
        local.reproduce(task, store_url=store_url, force=force, before=check, on_event=show)
        if why := _outdated(receipt, store_url):
            terminal().print(f"{why}; evaluating and publishing again")
            again = ("evaluate", "publish")  # what depends on the store, which DVC does not watch
            local.reproduce(task, store_url=store_url, force=True, only=again, on_event=show)
    except local.StageError as error:
        if error.exit_code != EXIT_REFUSED:
            raise typer.Exit(error.exit_code) from None  # the component has said what was wrong
        events["publish"] = REFUSED
        if receipt.exists():  # an earlier release's: it says nothing about this model
            shutil.rmtree(receipt)
    return local.outcome(task, events)


def _check_label_counts(dataset: Path, params: Path) -> None:
    """Raise InputError if a later stage would ask for more labels than the dataset has."""
    from graftline import label_counts

    document, where = load_document(params)
    models = parameter_models()
    sections = (section(document, where, name, models[name]) for name in ("finetune", "evaluate"))
    if asked := label_counts.asked(*sections):
        label_counts.check(asked, label_counts.in_dataset(dataset))


def _run_in_containers(task: str, store_url: str) -> list[StageRun]:
    """Run the pipeline in its images; return what became of each stage. Exits with a failed step's own code."""

    def show(step: str, event: str) -> None:
        if event in ("started", "CACHED"):
            cached = " (from the cache)" if event == "CACHED" else ""
            terminal().rule(f"{step} {task}{cached}", align="left", style="dim")

    try:
        containers.run(task, store_url=store_url, on_step=show)
    except StageError as error:
        if error.exit_code != EXIT_REFUSED:
            terminal().print(f"{error}; what it said is above")
            raise typer.Exit(error.exit_code) from None
    return containers.outcome(task)


def _outdated(receipt_folder: Path, store_url: str) -> str:
    """Return why evaluate and publish must run again although nothing that DVC watches changed; "" if not."""
    receipt = read_json(receipt_folder / "release.json")
    releases = list_releases(open_store(store_url), receipt["task"])
    if not any((r.version, r.manifest) == (receipt["version"], receipt["manifest"]) for r in releases):
        return "the store does not hold the release that was made here"
    if receipt["alias"] == CHAMPION and not receipt["promoted"]:
        return "the champion is not the one that the release was compared with"
    return ""


def _report(outputs: Path, store_url: str, stages: list[StageRun]) -> Path:
    """Write the report page if anything ran or the page is missing; return its path."""
    page = outputs / "report.html"
    if not page.exists() or any(stage.state != "skipped" for stage in stages):
        from graftline.report import write_report

        store: Store = open_store(store_url)
        return write_report(outputs, store, page)
    return page


def _summary(outputs: Path, stages: list[StageRun], total: float, page: Path) -> None:
    """Print the stages, the headline metrics, the release and the report's path."""
    console = terminal()
    table = Table(title=f"{outputs.name}: {total:.1f} s", title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("what happened")
    for stage in stages:
        table.add_row(stage.name, "" if stage.seconds is None else f"{stage.seconds:.1f}", stage.state)
    console.print(table)
    working = sum(stage.seconds or 0.0 for stage in stages)
    if working:
        console.print(f"outside the components: {total - working:.1f} s, {(total - working) / total:.0%} of the time")
    lift = outputs / "evaluation/lift.json"
    amount = read_json(lift)["amount"] if lift.is_file() else ""
    for line in headlines(read_json(outputs / "evaluation/metrics.json"), amount):
        console.print(line)
    if stages[-1].state == REFUSED:
        console.print("release   none: the gate refused")
    else:
        receipt = read_json(outputs / "release/release.json")
        note = " (the same)" if receipt.get("equal") else ""  # a receipt of before says nothing of it
        note += "" if receipt["promoted"] else f", not promoted to {receipt['alias']}"
        console.print(f"release   {receipt['task']}@{receipt['version']}{note}")
    console.print(f"report    {_shown(page)}", soft_wrap=True)


def headlines(metrics: dict[str, Any], amount: str) -> list[str]:
    """Return one line for each headline among evaluate's metrics that is there.

    Args:
        metrics: by name.
        amount: what the lift's counts are, such as `sentences`.
    """
    from graftline.score import primary_name, told_primary, told_scores

    primary = told_primary(metrics)
    scores = [(one.name, f"{one.value:.4f}{_interval(one.low, one.high, 1, '.4f')}") for one in told_scores(metrics)]
    if primary is None:
        scores = [(primary_name(metrics), "not defined on these test rows"), *scores]
    scale, unit = (100, " points") if primary is None or primary.share else (1, "")
    lifts = []
    for count in lift_counts(metrics):
        low, high = metrics[f"lift_{count}_low"], metrics[f"lift_{count}_high"]
        gain = f"{scale * metrics[f'lift_{count}']:+.1f}{unit}{_interval(low, high, scale, '+.1f')}"
        labels = f"all {amount.split()[0]}" if count == "all" else f"{count} {amount}"
        lifts.append(("lift", f"{gain}, at {labels}"))
    return [f"{name:8}  {said}" for name, said in (*scores[:1], *lifts, *scores[1:])]


def _interval(low: float | None, high: float | None, scale: float, style: str) -> str:
    return "" if low is None or high is None else f"  95% {scale * low:{style}} to {scale * high:{style}}"


def _shown(path: Path) -> str:
    """Return `path` relative to the working folder if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
