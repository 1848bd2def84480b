"""A small task of ratings: real packages of Debian whose names begin with `ruby` or `python-`, and how strongly each
needs others, from Suggests (1) to Depends (3); each part is made once a session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import small
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "strengths" / "raw"
USERS = "^(ruby|python-)"
CONTRACT = {
    "source": {"user": "package", "catalogue": "items.parquet"},
    "columns": {
        "items": {"type": "items", "name": "dependency", "cold": 0.1},
        "strength": {"type": "ratings", "min": 1, "max": 4},
        "package": {"type": "string", "unique": True},
    },
}
PARAMS: dict[str, Any] = {
    "pretrain": {
        "objective": {"name": "masked_items"}, "trunk": {"name": "items", "width": 32, "heads": 2, "hidden": 32},
        "epochs": 4, "batch_tokens": 256, "learning_rate": 0.01, "warmup_steps": 5,
    },
    "finetune": {
        "head": {"name": "rating", "top": 5}, "epochs": 1, "min_steps": 4, "batch": 32, "warmup_steps": 0,
        "learning_rate": 0.003,
    },
    "evaluate": {"lift_labels": [30], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 3},
}  # fmt: skip


def write_task(folder: Path) -> None:
    """Write the ratings as CSV, the catalogue, and the contract."""
    if not (RAW / "strengths.parquet").is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW / "strengths.parquet")
    (folder / "raw").mkdir(parents=True)
    pacsv.write_csv(table.filter(pc.match_substring_regex(table["package"], USERS)), folder / "raw" / "strengths.csv")
    shutil.copyfile(RAW / "items.parquet", folder / "raw" / "items.parquet")
    (folder / "expectations.yaml").write_text(json.dumps(CONTRACT))


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home`."""
    folder = home / "small_ratings"
    write_task(folder)
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}
    small.make("validate", PARAMS, **inputs, out_dataset=folder / "dataset", store=folder / "store")
    return folder / "dataset"


@once
def trunk(home: Path) -> Path:
    """Return the trunk that pretrain makes of the dataset."""
    out = dataset(home).with_name("trunk")
    small.make("pretrain", PARAMS, in_dataset=dataset(home), out_trunk=out)
    return out


@once
def still_trunk(home: Path) -> Path:
    """Return one that drops nothing: what it makes of a row is the same in any process."""
    out, pretrain = dataset(home).with_name("still_trunk"), PARAMS["pretrain"]
    document = {"pretrain": {**pretrain, "trunk": {**pretrain["trunk"], "dropout": 0.0}}}
    small.make("pretrain", document, in_dataset=dataset(home), out_trunk=out)
    return out


@once
def released(home: Path) -> Path:
    """Return the folder that holds dataset, trunk, model, evaluation, release, and the store with digits@1."""
    return small.release_of(trunk(home), dataset(home), PARAMS)
