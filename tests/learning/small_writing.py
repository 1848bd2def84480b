"""A small task of real help texts in English and German, and the trunk that pretrain makes of it; once a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "help" / "raw" / "pairs.parquet"
ROWS, LONGEST = 700, 60
"""Pairs, and characters of a text at most."""
CONTRACT = """\
columns:
  english: {type: text}
  german: {type: text, differs_from: english}
"""
TRUNK = {
    "name": "text", "architecture": "mbart", "layers": 1, "width": 48, "heads": 2, "hidden": 64, "max_length": 32
}  # fmt: skip
PRETRAIN: dict[str, Any] = {
    "objective": {"name": "denoising"}, "trunk": TRUNK, "epochs": 2, "batch_tokens": 1024, "held_out": 40,
    "optimizer": "muon", "learning_rate": 0.003, "weight_decay": 0.0, "warmup_steps": 2,
    "tokenizer": {"kind": "bpe_mask", "vocabulary": 400},
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "head": {"name": "sequence_to_sequence", "max_tokens": 32, "beams": 2},
    "epochs": 2, "batch": 32, "min_steps": 10, "warmup_steps": 0, "learning_rate": 0.005, "patience": None,
}  # fmt: skip


def pairs() -> dict[str, list[str]]:
    """Return short texts of the shipped data, `english` and `german`."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW, columns=["english", "german"]).to_pydict()
    rows = [row for row in zip(table["english"], table["german"], strict=True) if max(map(len, row)) <= LONGEST]
    return dict(zip(("english", "german"), map(list, zip(*rows[:ROWS], strict=True)), strict=True))


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the pairs, in a folder below `home`."""
    return small.validated(home / "small_writing", CONTRACT, pa.table(pairs()))


@once
def trunk(home: Path) -> Path:
    """Return the model that pretrain makes of both texts of each pair."""
    out = home / "small_writing" / "trunk"
    small.make("pretrain", {"pretrain": PRETRAIN}, in_dataset=dataset(home), out_trunk=out)
    return out
