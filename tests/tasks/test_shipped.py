"""Every shipped task but mnist, which `make run` runs, from its raw data to a release, at budgets of seconds.

GRAFTLINE_SHIPPED_TASKS=1 runs it: all of it takes minutes. What a model learns at such budgets is nothing: whether the
tasks' data, contracts and parameters go through all components as they are, and what a person then finds.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT
from graftline.records.folder import verify
from graftline.releases.catalogue import champion
from graftline.report import write_report
from graftline.store.opening import open_store
from graftline.tasks.assignments import parse_assignments
from graftline.tasks.documents import listed_tasks, task_document
from graftline.yamlfile import load_yaml

sys.path.insert(0, str(ROOT / "tests" / "learning"))

import small

SMALL = [
    "finetune.epochs=1", "finetune.min_steps=2", "evaluate.lift_seeds=2", "evaluate.lift_epochs=1",
    "evaluate.lift_test_rows=40", "evaluate.bootstrap_resamples=1000", "evaluate.mistakes=2", "evaluate.gate={}",
]  # fmt: skip
"""For every task, as `graftline run --set` takes them."""


@dataclass(frozen=True)
class Budget:
    labels: int
    """To learn from: of each class, or in all."""
    lift: int
    """Labels at which the lift is measured."""
    every: int = 1
    """Of so many rows of the raw data one is taken, at random, and so many times fewer must be there."""
    more: tuple[str, ...] = ()
    """What else makes the task small."""

    @property
    def assignments(self) -> list[str]:
        counts = [f"finetune.labels_per_class={self.labels}", f"evaluate.lift_labels=[{self.lift}]"]
        return [*SMALL, *counts, *self.more]


BUDGETS = {
    "glosses": Budget(10, 5, 5, ("pretrain.epochs=0.1", "pretrain.sizes={}", "evaluate.budget_labels=null")),
    "turkish": Budget(40, 20, 2, ("pretrain.epochs=0.1",)),
    "emoji": Budget(30, 5, 1, ("pretrain.epochs=0.02",)),
    "questions": Budget(64, 32, 10, ("pretrain.epochs=0.1",)),
    "packages": Budget(100, 50, 1, ("pretrain.epochs=0.05",)),
    "help": Budget(64, 32, 10, ("pretrain.epochs=0.1", "pretrain.held_out=50", "validate.test_fraction=0.02")),
    "voices": Budget(10, 5, 1, ("pretrain.epochs=0.02",)),
    "scenes": Budget(32, 16, 5, ("pretrain.epochs=0.02",)),
    "trees": Budget(32, 16, 1, ("pretrain.epochs=0.02",)),
    "prompts": Budget(32, 16, 2, ("pretrain.epochs=0.02",)),
    "strengths": Budget(100, 50, 1, ("pretrain.epochs=0.05",)),
}


def raw(task: str, folder: Path) -> dict[str, Path | str]:
    """Return the task's raw data and contract, as validate takes them; of a part of the rows in `folder`."""
    data, every = ROOT / "data" / task, BUDGETS[task].every
    if every == 1:
        return {"in_raw": data / "raw", "in_expectations": data / "expectations.yaml"}
    (folder / "raw").mkdir(parents=True)
    for path in (data / "raw").glob("*.parquet"):
        table = pq.read_table(path)
        chosen = np.random.default_rng(0).choice(len(table), len(table) // every, replace=False)
        pq.write_table(table.take(np.sort(chosen)), folder / "raw" / path.name)
    contract = load_yaml(data / "expectations.yaml")
    contract["min_rows"] //= every
    (folder / "expectations.yaml").write_text(json.dumps(contract))
    return {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}


def test_every_shipped_task_has_a_small_budget() -> None:
    """`make run` runs the first one whole."""
    assert sorted(["mnist", *BUDGETS]) == sorted(listed_tasks())


@pytest.mark.skipif(os.environ.get("GRAFTLINE_SHIPPED_TASKS") != "1", reason="GRAFTLINE_SHIPPED_TASKS=1 runs it")
@pytest.mark.parametrize("task", BUDGETS)
def test_a_shipped_task_goes_from_its_raw_data_to_a_release(task: str, tmp_path: Path) -> None:
    document, _ = task_document(task, parse_assignments(BUDGETS[task].assignments))
    folder = tmp_path / task
    small.make(
        "validate", document, **raw(task, tmp_path / "part"), out_dataset=folder / "dataset", store=tmp_path / "store"
    )
    small.make("pretrain", document, in_dataset=folder / "dataset", out_trunk=folder / "trunk")
    small.make(
        "finetune", document, in_dataset=folder / "dataset", in_trunk=folder / "trunk", out_model=folder / "model"
    )
    inputs: dict[str, Path | str] = {f"in_{name}": folder / name for name in ("dataset", "trunk", "model")} | {
        "store": tmp_path / "store"
    }
    small.make("evaluate", document, **inputs, out_evaluation=folder / "evaluation")
    inputs["in_evaluation"] = folder / "evaluation"
    small.make("publish", document, **inputs, out_release=folder / "release")

    for name in ("dataset", "trunk", "model", "evaluation", "release"):
        assert verify(folder / name).content
    store = open_store(str(tmp_path / "store"))
    released, receipt = champion(store, task), json.loads((folder / "release/release.json").read_text())
    assert released is not None and (released.version, released.manifest) == (1, receipt["manifest"])
    metrics = json.loads((folder / "evaluation/metrics.json").read_text())
    assert math.isfinite(metrics[metrics["primary"]]) and f"lift_{BUDGETS[task].lift}" in metrics
    page = write_report(folder, store, folder / "report.html").read_text()
    assert "The same fine-tuning from the pretrained trunk and from scratch" in page
    for path in shown(task):
        assert (folder / path).stat().st_size > 0, f"data/{task}/dvc.yaml declares {path}"


def shown(task: str) -> list[str]:
    """Return what `dvc metrics show` and `dvc plots show` read of the task: files of its outputs."""
    listed = load_yaml(ROOT / "data" / task / "dvc.yaml")
    names = list(listed["metrics"])
    for plot in listed["plots"]:
        names += [plot] if isinstance(plot, str) else list(next(iter(plot.values()))["y"])
    start = "../../outputs/${task}/"
    assert all(name.startswith(start) for name in names)
    return [name.removeprefix(start) for name in names]
