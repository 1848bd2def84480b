"""Two small tasks whose label is a set of classes, and what the components make of them; each part once a session.

- Pictures: two real digits of MNIST side by side, 28 by 56 pixels. The set is the digits in it: two, or one where both
  are the same. The digits and their labels are as they were collected; that two stand in one picture is our doing. A
  digit stands in one picture only.
- Sentences: real ones of the Turkish tagged corpus. The set is which of some parts of speech occur in the sentence, by
  the tags that people gave to its words; it may be empty. We only chose the tags: those that neither every
  sentence has nor hardly one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import small
import small_text
from session import once

from graftline.environment import ROOT

DIGITS = tuple("0123456789")
PICTURES = 1200
TAGS = ("ADJ", "ADP", "ADV", "CONJ", "DET", "NUM", "PRON", "PRT")
SENTENCES = slice(None, None, 3)
"""Web and Wikipedia, a third of either."""
TOKENIZER = {"kind": "wordpiece", "vocabulary": 1000, "lowercase": True}
HEAD = {"name": "multi_label", "threshold": None}
GATE = {"floors": {"micro_f1": 0.2}}
PARAMS: dict[str, dict[str, Any]] = {
    "pictures": {
        "pretrain": {"epochs": 3, "batch": 64, "trunk": {"channels": [8, 16, 32], "width": 64}},
        "finetune": {"head": HEAD, "epochs": 5, "batch": 32, "min_steps": 10, "warmup_steps": 0},
        "evaluate": {"lift_labels": [40], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 6, "gate": GATE},
    },
    "sentences": {
        "pretrain": {**small_text.PRETRAIN, "tokenizer": TOKENIZER},
        "finetune": {
            "head": {**HEAD, "max_tokens": 48}, "epochs": 8, "batch": 32, "min_steps": 10, "warmup_steps": 0,
            "learning_rate": 0.005,
        },
        "evaluate": {"lift_labels": [40], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 6, "gate": GATE},
    },
}  # fmt: skip
CONTRACTS = {
    "pictures": {
        "image": {"type": "image", "shape": [28, 56], "min": 0, "max": 255},
        "digits": {"type": "labels", "classes": list(DIGITS)},
    },
    "sentences": {"text": {"type": "text", "unique": True}, "tags": {"type": "labels", "classes": list(TAGS)}},
}


def pictures() -> pa.Table:
    """Return pairs of digits in one picture, drawn without putting back, and the set of both."""
    raw = pq.read_table(small.RAW)
    order = np.random.default_rng(0).permutation(raw.num_rows)[: 2 * PICTURES].reshape(2, PICTURES)
    pixels = np.stack(raw["image"].to_numpy()).reshape(-1, 28, 28)
    names = raw["label"].to_numpy().astype(str)
    both = np.concatenate([pixels[order[0]], pixels[order[1]]], axis=2).reshape(PICTURES, -1)
    sets = [sorted(set(pair)) for pair in zip(*names[order].tolist(), strict=True)]
    return pa.table({"image": list(both), "digits": sets})


def sentences() -> pa.Table:
    """Return sentences as text, and which of `TAGS` their words have."""
    rows = pq.read_table(ROOT / "data/turkish/raw/sentences.parquet").to_pylist()[SENTENCES]
    sets = [sorted(set(row["tags"]) & set(TAGS)) for row in rows]
    return pa.table({"text": [" ".join(row["words"]) for row in rows], "tags": sets})


@once
def dataset(home: Path, name: str) -> Path:
    """Return the dataset that validate makes of the task `pictures` or `sentences`, in a folder below `home`."""
    folder = home / f"small_sets_{name}"
    (folder / "raw").mkdir(parents=True)
    pq.write_table({"pictures": pictures, "sentences": sentences}[name](), folder / "raw" / "rows.parquet")
    (folder / "expectations.yaml").write_text(json.dumps({"columns": CONTRACTS[name]}))
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "expectations.yaml"}
    small.make("validate", {}, **inputs, out_dataset=folder / "dataset", store=folder / "store")
    return folder / "dataset"


@once
def trunk(home: Path, name: str) -> Path:
    """Return the trunk that pretrain makes of the dataset."""
    out = dataset(home, name).with_name("trunk")
    small.make("pretrain", PARAMS[name], in_dataset=dataset(home, name), out_trunk=out)
    return out


@once
def released(home: Path, name: str) -> Path:
    """Return the folder that holds dataset, trunk, model, evaluation, release, and the store with digits@1."""
    return small.release_of(trunk(home, name), dataset(home, name), PARAMS[name])
