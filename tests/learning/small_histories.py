"""A small task of histories: real packages of Debian whose names begin with `ruby` or `golang`, and on which packages
each depends; each part is made once a session."""

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

RAW = ROOT / "data" / "packages" / "raw"
USERS = "^(ruby|golang)"
CONTRACT: dict[str, Any] = {
    "source": {"user": "package", "catalogue": "items.parquet"},
    "columns": {
        "items": {"type": "items", "name": "dependency", "cold": 0.1},
        "package": {"type": "string", "unique": True},
    },
}
PARAMS: dict[str, Any] = {
    "pretrain": {
        "objective": {"name": "masked_items"}, "trunk": {"name": "items", "width": 32, "heads": 2, "hidden": 32},
        "epochs": 8, "batch_tokens": 256, "learning_rate": 0.01, "warmup_steps": 5,
    },
    "finetune": {
        "head": {"name": "recommendation", "top": 5}, "epochs": 1, "min_steps": 4, "batch": 32, "warmup_steps": 0,
        "learning_rate": 0.003,
    },
    "evaluate": {"lift_labels": [30], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 3},
}  # fmt: skip


def write_task(
    folder: Path, raw: Path = RAW, lines: str = "dependencies", users: str = USERS, contract: dict[str, Any] = CONTRACT
) -> None:
    """Write some users' lines of a shipped task as CSV, its catalogue, and the contract."""
    if not (raw / f"{lines}.parquet").is_file():
        pytest.fail(f"{raw} is missing: run `dvc pull`")
    table = pq.read_table(raw / f"{lines}.parquet")
    (folder / "raw").mkdir(parents=True)
    pacsv.write_csv(table.filter(pc.match_substring_regex(table["package"], users)), folder / "raw" / f"{lines}.csv")
    shutil.copyfile(raw / "items.parquet", folder / "raw" / "items.parquet")
    (folder / "expectations.yaml").write_text(json.dumps(contract))


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home`."""
    folder = home / "small_histories"
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
def released(home: Path) -> Path:
    """Return the folder that holds dataset, trunk, model, evaluation, release, and the store with digits@1."""
    return small.release_of(trunk(home), dataset(home), PARAMS)
