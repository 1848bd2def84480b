"""What a run of a task takes, before any work: parameters, tokens, operations, memory, time and cost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import read_json
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.plan.estimate import STAGES, Cost, Plan, Row, estimate_row, price
from graftline.profiles import Profile
from graftline.records.folder import read_execution, read_record
from graftline.trunks.registry import family_module

if TYPE_CHECKING:
    from graftline.plan.measure import Measured
    from graftline.plan.parts import Part
    from graftline.plan.sample import Sample
    from graftline.tasks.evaluate import EvaluateParams
    from graftline.tasks.finetune import FinetuneParams
    from graftline.tasks.pretrain import PretrainParams

FILE = "plan.json"
_OUTPUTS = {"pretrain": "trunk", "finetune": "model", "evaluate": "evaluation"}
_READ = {"pretrain": ("pretrain",), "finetune": ("finetune",), "evaluate": ("evaluate", "finetune")}
"""The parameter sections that a stage's time depends on."""

__all__ = [
    "FILE",
    "STAGES",
    "Comparison",
    "Cost",
    "Plan",
    "Row",
    "Sections",
    "compare",
    "make_plan",
    "start_seconds",
    "write_plan",
]


@dataclass(frozen=True)
class Sections:
    """The checked parameters of the stages that train."""

    pretrain: PretrainParams
    finetune: FinetuneParams
    evaluate: EvaluateParams

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).model_dump(mode="json") for name in STAGES}


def make_plan(
    task: str,
    sections: Sections,
    sample: Sample,
    profiles: dict[str, Profile],
    *,
    threads: int,
    start: float,
    seconds: float = 1.5,
) -> Plan:
    """Return the plan of a task from real steps of its models on a sample of its data.

    Args:
        task: its name.
        sections: its parameters.
        sample: some rows of its data, and how many there are.
        profiles: the pools to price.
        threads: of this machine.
        start: seconds until a component has loaded its libraries, as `start_seconds` measures them.
        seconds: how long to time each model's steps, about.

    Raises:
        InputError: the parameters do not fit the data.
    """
    from graftline.learning.device import at_once, count
    from graftline.plan.layers import extend, is_large, layers_of, with_layers

    def measured(pretrain: PretrainParams) -> list[tuple[Part, Measured]]:
        return _measure(replace(sections, pretrain=pretrain), sample, threads, seconds)

    if is_large(sections.pretrain):
        pairs = zip(*(measured(with_layers(sections.pretrain, layers)) for layers in (1, 2)), strict=True)
        found = [(part, extend(a, b, layers_of(sections.pretrain, part.name))) for (part, a), (_, b) in pairs]
    else:
        found = measured(sections.pretrain)
    workers = at_once(threads, count())
    rows = tuple(estimate_row(part, step, workers) for part, step in found)
    costs = tuple(price(name, profile, rows, threads, start) for name, profile in profiles.items())
    share = min(step.share for _, step in found)
    load = os.getloadavg()[0]
    return Plan(task, sample.source, sample.rows, threads, start, rows, costs, sections.as_dict(), share, load)


def start_seconds(pretrain: PretrainParams) -> float:
    """Return how long a component loads its libraries here for such a trunk, from a process that does so.

    Of a busy machine it is the CPU time: the wait for others is not the task's.
    """
    began, before = time.perf_counter(), _children_seconds()
    code = f"import matplotlib.pyplot, {family_module(pretrain.trunk)}, graftline.problems.fit"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return min(time.perf_counter() - began, _children_seconds() - before)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measure(sections: Sections, sample: Sample, threads: int, seconds: float) -> list[tuple[Part, Measured]]:
    import torch

    from graftline.plan.measure import measure
    from graftline.plan.workload import parts

    before, found = torch.get_num_threads(), []
    with tempfile.TemporaryDirectory(prefix="graftline-plan-") as work:
        try:
            for part, step in parts(sample, sections.pretrain, sections.finetune, sections.evaluate, Path(work)):
                torch.set_num_threads(1 if part.apart else threads)
                found.append((part, measure(step, seconds=seconds)))
        finally:
            torch.set_num_threads(before)
    return found


def write_plan(plan: Plan, outputs: Path) -> Path:
    """Write plan.json into a task's outputs, for the report to compare a run with; return its path."""
    outputs.mkdir(parents=True, exist_ok=True)
    path = outputs / FILE
    write_atomic(path, (json.dumps(plan.as_dict(), indent=1) + "\n").encode())
    return path


@dataclass(frozen=True)
class Comparison:
    """One stage as it was planned, and as it came."""

    stage: str
    estimated: float
    """Seconds."""
    actual: float
    """Seconds."""


def compare(outputs: Path) -> list[Comparison]:
    """Return estimate and actual time of each stage that ran with the parameters and threads of outputs' plan.json.

    Empty without a plan, or with one that is no longer of these parameters.
    """
    if not (outputs / FILE).is_file():
        return []
    plan = read_json(outputs / FILE)
    try:
        found = [_compare(outputs / _OUTPUTS[stage], stage, plan) for stage in STAGES]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(outputs / FILE, f"not a plan ({error!r})", fix="run `graftline plan` again") from None
    return [comparison for comparison in found if comparison is not None]


def _compare(output: Path, stage: str, plan: dict[str, Any]) -> Comparison | None:
    if not output.is_dir():
        return None
    record, seconds = read_record(output), read_execution(output).get("seconds")
    planned = {name: plan["parameters"][name] for name in _READ[stage]}
    ran = {name: record.parameters.get(name) for name in _READ[stage]}
    # evaluate computes with one thread a worker, and its record says so
    threads = stage == "evaluate" or record.environment.get("threads") == plan["threads"]
    if seconds is None or planned != ran or not threads:
        return None
    return Comparison(stage, float(plan["seconds"][stage]), float(seconds))
