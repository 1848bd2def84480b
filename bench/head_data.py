"""What the measurements of heads work on: shipped tasks, as their own contracts and parameters make them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.rounds import Form, Rows
from graftline.environment import ROOT
from graftline.tasks.documents import task_document
from graftline.tasks.finetune import FinetuneParams


@dataclass(frozen=True)
class Task:
    """A shipped task, and how its like is learned elsewhere."""

    batch: int
    """Rows a step, as in its parameters."""
    rows: tuple[Rows, ...] = ("labelled", "by_length")
    """What the Trainer learns from: first as the example of its kind has it."""
    forms: tuple[Form, ...] = ()
    """Of a detector: other code than the release's that the Trainer trains too."""


TASKS = {
    "questions": Task(32, ("labelled", "by_length", "full_length")),
    "help": Task(32),
    "prompts": Task(16),
    "scenes": Task(16, ("pictures", "pixels"), ("channels_last", "own")),
    "packages": Task(128, ("labelled", "by_length", "full_length")),
}
"""Questions, translation, speech recognition, detection with masks, recommendation."""


def prepare(task: str, folder: Path) -> None:
    """Write the dataset, a trunk after one step, and the training examples as arrays."""
    from graftline.dataset import read_schema
    from graftline.problems.registry import make_problem

    document, _ = task_document(task, {"pretrain.epochs": 1e-6})
    data, text = ROOT / "data" / task, json.dumps(document)
    raw: list[str | Path] = [
        "--in-raw",
        data / "raw",
        "--in-expectations",
        data / "expectations.yaml",
        "--store",
        folder / "store",
    ]
    _run("validate", text, *raw, "--out-dataset", folder / "dataset")
    _run("pretrain", text, "--in-dataset", folder / "dataset", "--out-trunk", folder / "trunk")
    problem = make_problem(params_of(task).head, read_schema(folder / "dataset"))
    np.savez(folder / "train.npz", **problem.read(folder / "dataset", "train", folder / "trunk").arrays())


def params_of(task: str, **changes: Any) -> FinetuneParams:
    """Return the task's own parameters of fine-tuning but for the changes, by dotted key."""
    return FinetuneParams.model_validate(
        task_document(task, {f"finetune.{name}": value for name, value in changes.items()})[0]["finetune"]
    )


def _run(component: str, params: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", f"graftline.components.{component}", "--params", params, *map(str, arguments)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
