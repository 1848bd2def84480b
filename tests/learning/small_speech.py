"""A small task of real prompts: short English ones with what is said, some French ones without; made once a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "prompts" / "raw" / "prompts.parquet"
LABELLED, UNLABELLED, LONGEST = 80, 20, 12
"""Rows of each language, and characters of a transcript at most."""
CONTRACT = {
    "columns": {
        "audio": {"type": "audio", "rate": 8000, "min_seconds": 0.2},
        "transcript": {"type": "transcript", "nullable": True},
    }
}
TRUNK = {"name": "hubert", "layers": 1, "width": 64, "heads": 2, "hidden": 64, "channels": 32, "neighbours": 8}
PRETRAIN: dict[str, Any] = {
    "objective": {"name": "masked_units", "clusters": 20}, "trunk": TRUNK, "epochs": 2, "batch_tokens": 800,
    "warmup_steps": 2, "optimizer": "muon",
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "head": {"name": "recognition", "mask_ratio": 0.1, "span": 2}, "epochs": 1, "min_steps": 6, "batch": 8,
    "warmup_steps": 0, "learning_rate": 0.005,
}  # fmt: skip


def prompts() -> dict[str, list[Any]]:
    """Return short prompts of the shipped data, `audio` and `transcript`: the English ones, then French ones."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW, columns=["audio", "transcript", "language"])
    rows = [row for row in table.to_pylist() if len(row["transcript"] or "") <= LONGEST]
    said = [row for row in rows if row["transcript"]][:LABELLED]
    others = [row for row in rows if row["language"] == "fr"][:UNLABELLED]
    return {name: [row[name] for row in said + others] for name in ("audio", "transcript")}


def table(columns: dict[str, list[Any]]) -> pa.Table:
    """Return the columns as raw data."""
    audio = pa.array(columns["audio"], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table({"audio": audio, "transcript": pa.array(columns["transcript"], pa.string())})


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the prompts, in a folder below `home`."""
    return small.validated(home / "small_speech", json.dumps(CONTRACT), table(prompts()))


@once
def trunk(home: Path) -> Path:
    """Return the trunk that pretrain makes of all clips but the test's."""
    out = dataset(home).with_name("trunk")
    small.make("pretrain", {"pretrain": PRETRAIN}, in_dataset=dataset(home), out_trunk=out)
    return out
