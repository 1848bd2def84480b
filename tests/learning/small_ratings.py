"""A small task of ratings: real packages of Debian whose names begin with `ruby` or `python-`, and how strongly each
needs others, from Suggests (1) to Depends (3); each part is made once a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import small
import small_histories
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "strengths" / "raw"
USERS = "^(ruby|python-)"
CONTRACT = small_histories.CONTRACT | {
    "columns": small_histories.CONTRACT["columns"] | {"strength": {"type": "ratings", "min": 1, "max": 4}}
}
PARAMS: dict[str, Any] = {
    "pretrain": small_histories.PARAMS["pretrain"] | {"epochs": 4},
    "finetune": small_histories.PARAMS["finetune"] | {"head": {"name": "rating", "top": 5}},
    "evaluate": small_histories.PARAMS["evaluate"],
}


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home`."""
    folder = home / "small_ratings"
    small_histories.write_task(folder, RAW, "strengths", USERS, CONTRACT)
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
