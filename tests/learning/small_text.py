"""A small task of real glosses, and what the components make of it with tiny budgets; each part once a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import small
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "glosses" / "raw" / "glosses.parquet"
CLASSES = ("noun.animal", "noun.artifact", "noun.person", "noun.plant")
A_CLASS, UNLABELLED = 120, 400
"""Labelled glosses of each class, and glosses without a label."""
CONTRACT = f"""\
columns:
  text: {{type: text, min_length: 3}}
  label: {{type: string, role: label, nullable: true, max_null_share: 0.6, classes: [{", ".join(CLASSES)}]}}
"""
ENCODER = {"name": "text", "layers": 1, "width": 32, "heads": 2, "hidden": 48, "max_length": 48}
DECODER = {**ENCODER, "architecture": "llama"}
PRETRAIN: dict[str, Any] = {
    "objective": {"name": "masked_lm"}, "trunk": ENCODER, "epochs": 1, "batch_tokens": 1024, "held_out": 50,
    "optimizer": "muon", "learning_rate": 0.003, "weight_decay": 0.0, "warmup_steps": 2,
    "tokenizer": {"kind": "wordpiece", "vocabulary": 512, "lowercase": True},
}  # fmt: skip
CAUSAL = {
    **PRETRAIN,
    "objective": {"name": "causal_lm"},
    "trunk": DECODER,
    "tokenizer": {"kind": "bpe", "vocabulary": 512},
}
FINETUNE: dict[str, Any] = {
    "head": {"name": "sequence_classification"},
    "epochs": 2,
    "batch": 32,
    "min_steps": 10,
    "warmup_steps": 0,
}


def write_task(folder: Path) -> None:
    """Write raw glosses and their contract, as `folder`/raw and `folder`/expectations.yaml."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW, columns=["text", "label"])
    parts = [table.filter(pc.equal(table["label"], name)).slice(0, A_CLASS) for name in CLASSES]
    parts.append(table.filter(pc.is_null(table["label"])).slice(0, UNLABELLED))
    (folder / "raw").mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), folder / "raw" / "glosses.parquet")
    (folder / "expectations.yaml").write_text(CONTRACT)


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home` (the session's, for all tests)."""
    folder = home / "small_text"
    write_task(folder)
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}
    small.make("validate", {}, **inputs, out_dataset=folder / "dataset", store=folder / "store")
    return folder / "dataset"


@once
def trunk(home: Path) -> Path:
    """Return the masked language model that pretrain makes of the dataset."""
    out = home / "small_text" / "trunk"
    small.make("pretrain", {"pretrain": PRETRAIN}, in_dataset=dataset(home), out_trunk=out)
    return out


@once
def causal_trunk(home: Path) -> Path:
    """Return the causal language model that pretrain makes of the dataset."""
    out = home / "small_text" / "causal_trunk"
    small.make("pretrain", {"pretrain": CAUSAL}, in_dataset=dataset(home), out_trunk=out)
    return out


@contextmanager
def inside_repository(source: Path) -> Iterator[Path]:
    """Copy a file or folder to a place in the repository that git ignores, for the block."""
    (ROOT / "build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "build") as folder:
        target = Path(folder) / source.name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        yield target
