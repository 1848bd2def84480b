"""A small task of real digits, and what the five components make of it with tiny budgets.

Each part is made once a session, when a test first asks for it.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from session import once

from graftline.component import main
from graftline.environment import ROOT

RAW = ROOT / "data" / "mnist" / "raw" / "images.parquet"
TASK = "digits"
A_CLASS = 60
"""Images a class: of the 600, about 430 to train, 50 to stop early, 120 to test and 480 without labels."""
CONTRACT = """\
columns:
  image: {type: image, shape: [28, 28], min: 0, max: 255}
  label: {type: integer, role: label, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
"""
TRUNK = {"channels": [4, 8, 16], "width": 32}
PARAMS: dict[str, Any] = {
    "pretrain": {"epochs": 10, "batch": 64, "trunk": TRUNK},
    "finetune": {"epochs": 10, "batch": 32, "min_steps": 20, "warmup_steps": 0},
    "evaluate": {"lift_labels": [2], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 4},
}


def run(component: str, document: dict[str, Any], **paths: Path | str) -> int:
    """Run a component's entry point in this process, on one thread; return its exit code.

    `paths` are its options: `in_dataset`, `out_trunk`, `store`, ...
    """
    arguments = ["--params", json.dumps({"task": TASK, **document}), "--threads", "1"]
    for name, value in paths.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    try:
        main(import_module(f"graftline.components.{component}").COMPONENT, arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def make(component: str, document: dict[str, Any], **paths: Path | str) -> None:
    """Run a component that must succeed."""
    code = run(component, document, **paths)
    assert code == 0, f"{component} ended with exit code {code}"


def validated(folder: Path, contract: str, table: pa.Table) -> Path:
    """Return the dataset that validate makes of a table, in `folder`/dataset."""
    (folder / "raw").mkdir(parents=True)
    pq.write_table(table, folder / "raw" / "rows.parquet")
    (folder / "expectations.yaml").write_text(contract)
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}
    make("validate", {}, **inputs, out_dataset=folder / "dataset", store=folder / "store")
    return folder / "dataset"


def release_of(trunk: Path, dataset: Path, document: dict[str, Any]) -> Path:
    """Return the trunk's folder, with the outputs of all five components and the store with digits@1."""
    folder = trunk.parent
    inputs: dict[str, Path | str] = {"in_dataset": dataset, "in_trunk": trunk}
    make("finetune", document, **inputs, out_model=folder / "model")
    inputs |= {"in_model": folder / "model", "store": folder / "store"}
    make("evaluate", document, **inputs, out_evaluation=folder / "evaluation")
    make("publish", document, **inputs, in_evaluation=folder / "evaluation", out_release=folder / "release")
    return folder


def write_task(folder: Path) -> None:
    """Write raw digits and their contract, as `folder`/raw and `folder`/expectations.yaml."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW)
    labels = table["label"].to_numpy()
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == n)[:A_CLASS] for n in range(10)]))
    (folder / "raw").mkdir(parents=True)
    pq.write_table(table.take(pa.array(chosen)), folder / "raw" / "images.parquet")
    (folder / "expectations.yaml").write_text(CONTRACT)


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home` (the session's, for all tests)."""
    folder = home / "small"
    write_task(folder)
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}
    make("validate", PARAMS, **inputs, out_dataset=folder / "dataset", store=folder / "store")
    return folder / "dataset"


@once
def trunk(home: Path) -> Path:
    """Return the trunk that pretrain makes of the dataset; a folder beside it."""
    out = dataset(home).with_name("trunk")
    make("pretrain", PARAMS, in_dataset=dataset(home), out_trunk=out)
    return out


@once
def contrastive_trunk(home: Path) -> Path:
    """Return the trunk that pretrain makes of the dataset by contrast; a folder beside it."""
    out = dataset(home).with_name("contrastive")
    contrast = {"epochs": 2, "batch": 48, "objective": {"name": "contrastive"}}
    make("pretrain", {"pretrain": PARAMS["pretrain"] | contrast}, in_dataset=dataset(home), out_trunk=out)
    return out


@once
def released(home: Path) -> Path:
    """Return the folder that holds dataset, trunk, model, evaluation, release, and the store with digits@1."""
    return release_of(trunk(home), dataset(home), PARAMS)
