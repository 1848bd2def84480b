"""`graftline plan TASK`: what a run takes, before any work."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from graftline.cli.shown import terminal
from graftline.cli.stores import Task
from graftline.engines.local import OUTPUTS, output_folder, pull_raw
from graftline.environment import ROOT, cpu_count
from graftline.errors import InputError
from graftline.label_counts import asked, check
from graftline.plan import STAGES, Plan, Sections, make_plan, start_seconds, write_plan
from graftline.plan.sample import Sample, sample_dataset, sample_raw
from graftline.profiles import choose, load_profiles
from graftline.tasks.documents import parameter_models, task_document
from graftline.tasks.parameters import section
from graftline.values.contract import load_contract

_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan(
    task: Task,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="P", help="one pool of pipelines/profiles.yaml; all if left out")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Say what a run of a task takes: parameters, tokens, operations, memory, time and cost.

    Times a few real steps of each model, on a sample of the task's data. The plan is kept in outputs/TASK/plan.json;
    the report of a run compares it with what the run took.
    """
    document, where = task_document(task)
    profiles = choose(load_profiles(), profile)
    models = parameter_models()
    values: dict[str, Any] = {name: section(document, where, name, models[name]) for name in STAGES}
    with tempfile.TemporaryDirectory(prefix="graftline-plan-") as folder:
        sample = _sample(task, document, where, Path(folder))
        if sample.available:
            check(asked(values["finetune"], values["evaluate"]), sample.available)
        start = start_seconds(values["pretrain"])
        made = make_plan(task, Sections(**values), sample, profiles, threads=cpu_count(), start=start)
    path = write_plan(made, OUTPUTS / task)
    if as_json:
        print(json.dumps(made.as_dict(), indent=2))
    else:
        _show(made, path)


def _sample(task: str, document: dict[str, Any], where: str, folder: Path) -> Sample:
    """Return a sample of the task's dataset if there is one, else of its raw data, which is fetched if need be."""
    with suppress(InputError):  # none yet, or one of an earlier version: a run makes it again
        return sample_dataset(output_folder(task, "validate"), folder)
    pull_raw(task)
    contract = load_contract(ROOT / "data" / task / "expectations.yaml")
    params = section(document, where, "validate", parameter_models()["validate"])
    return sample_raw(ROOT / "data" / task / "raw", contract, params, folder)  # type: ignore[arg-type]


def _show(plan: Plan, path: Path) -> None:
    from graftline.plan.measure import BUSY

    console = terminal()
    counts = ", ".join(f"{count:,} {split}" for split, count in plan.data_rows.items())
    console.print(f"{plan.task}: {counts} rows, by {plan.source}", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "fits", "parameters", "steps", "examples", "tokens", "FLOP", "memory", "here"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for row in plan.rows:
        tokens = "" if row.tokens is None else _short(row.tokens)
        table.add_row(
            f"{row.stage} {row.model}".strip(),
            f"{row.fits}",
            _short(row.parameters),
            _short(row.steps),
            _short(row.examples),
            tokens,
            _short(row.flops),
            f"{_short(row.state_bytes + row.activation_bytes)}B",
            _time(row.seconds),
        )
    console.print(table)
    total = sum(plan.stage_seconds().values())
    console.print(f"this machine, {plan.threads} threads: about {_time(total)} for these stages")
    if plan.share < BUSY:
        console.print(
            f"this machine is busy: the steps that were timed had a CPU for {plan.share:.0%} of the time "
            f"(load {plan.load:.1f}); the times are those without the wait, so a run that starts now takes longer",
            soft_wrap=True,
        )
    console.print()
    costs = Table(box=None, pad_edge=False)
    for name in ("profile", "time", "USD an hour", "USD", "memory"):
        costs.add_column(name, justify="left" if name == "profile" else "right")
    for cost in plan.costs:
        needs = f"{cost.memory_gib:.2f} GiB" + ("" if cost.fits else ", too much")
        costs.add_row(cost.profile, _time(cost.total), f"{cost.price_per_hour:.2f}", f"{cost.cost:.4f}", needs)
    console.print(costs)
    for cost in plan.costs:
        for words, stages in _grouped(cost.devices).items():
            console.print(f"{cost.profile}: {' and '.join(stages)}: {words}", soft_wrap=True)
    console.print(f"prices are those of pipelines/profiles.yaml; kept in {path}", soft_wrap=True)


def _grouped(devices: dict[str, str]) -> dict[str, list[str]]:
    """Return the stages by what the accelerators do in them."""
    found: dict[str, list[str]] = {}
    for stage, words in devices.items():
        found.setdefault(words, []).append(stage)
    return found


def _short(value: float) -> str:
    """Return a number with three digits and a prefix, such as 1.2T."""
    for size, prefix in _UNITS:
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
