"""A small task of real tagged sentences, and what the components make of it; each part once a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small
import small_text
from session import once

from graftline.environment import ROOT
from graftline.yamlfile import load_yaml

TASK = ROOT / "data" / "turkish"
TAGS = ("ADJ", "ADV", "CONJ", "DET", "NOUN", "PRON", "PUNCT", "VERB")
SENTENCES = 240
"""The first ones that have no other tags."""
PRETRAIN: dict[str, Any] = {**small_text.PRETRAIN, "batch_tokens": 512, "held_out": 20}
FINETUNE: dict[str, Any] = {
    "head": {"name": "token_classification"},
    "epochs": 12,
    "batch": 16,
    "min_steps": 10,
    "warmup_steps": 0,
}


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the first sentences, in a folder below `home`."""
    raw = TASK / "raw" / "sentences.parquet"
    if not raw.is_file():
        pytest.fail(f"{raw} is missing: run `dvc pull`")
    folder = home / "small_tags"
    (folder / "raw").mkdir(parents=True)
    table = pq.read_table(raw)
    common = [place for place, tags in enumerate(table["tags"].to_pylist()) if set(tags) <= set(TAGS)]
    pq.write_table(table.take(common[:SENTENCES]), folder / "raw" / "sentences.parquet")
    contract = load_yaml(TASK / "expectations.yaml")
    contract["columns"]["tags"]["classes"] = list(TAGS)
    (folder / "expectations.yaml").write_text(json.dumps({"columns": contract["columns"]}))
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}
    small.make("validate", {}, **inputs, out_dataset=folder / "dataset", store=folder / "store")
    return folder / "dataset"


@once
def trunk(home: Path) -> Path:
    """Return the masked language model that pretrain makes of the dataset."""
    out = dataset(home).with_name("trunk")
    small.make("pretrain", {"pretrain": PRETRAIN}, in_dataset=dataset(home), out_trunk=out)
    return out


@once
def model(home: Path) -> Path:
    """Return the model that finetune makes of both."""
    out = dataset(home).with_name("model")
    small.make("finetune", {"finetune": FINETUNE}, in_dataset=dataset(home), in_trunk=trunk(home), out_model=out)
    return out
