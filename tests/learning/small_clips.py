"""A small task of clips: real ones of three voices of the shipped task, as a folder a voice; each part is made once a
session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "voices" / "raw" / "voices.parquet"
VOICES = ("m1", "f1", "f4")
A_VOICE = 24
CONTRACT = {
    "columns": {
        "audio": {"type": "audio", "rate": 8000, "max_seconds": 4},
        "label": {"type": "string", "role": "label", "classes": list(VOICES)},
        "path": {"type": "string"},
    }
}
TRUNK = {"name": "hubert", "layers": 1, "width": 32, "heads": 2, "hidden": 32, "channels": 16, "neighbours": 8}
PARAMS: dict[str, Any] = {
    "pretrain": {
        "objective": {"name": "masked_units", "clusters": 20}, "trunk": TRUNK,
        "epochs": 3, "batch_tokens": 800, "warmup_steps": 2, "optimizer": "muon",
    },
    "finetune": {
        "head": {"name": "sequence_classification"}, "epochs": 1, "min_steps": 12, "batch": 12, "warmup_steps": 0,
        "learning_rate": 0.01,
    },
    "evaluate": {"lift_labels": [3], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 3},
}  # fmt: skip


def clips(voice: str, count: int = A_VOICE) -> list[bytes]:
    """Return the first clips of a voice, as Ogg."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    rows = pq.read_table(RAW, filters=[("voice", "=", voice)], columns=["audio"]).slice(0, count)
    return [one["bytes"] for one in rows["audio"].to_pylist()]


def write_folder(folder: Path) -> None:
    """Write a folder a voice."""
    for voice in VOICES:
        (folder / voice).mkdir(parents=True)
        for number, data in enumerate(clips(voice)):
            (folder / voice / f"{number:02}.ogg").write_bytes(data)


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home`."""
    folder = home / "small_clips"
    write_folder(folder / "raw")
    (folder / "expectations.yaml").write_text(json.dumps(CONTRACT))
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
