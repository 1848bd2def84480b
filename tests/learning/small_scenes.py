"""A small task of scenes: real digits of MNIST, one to three of them on grey noise, with boxes and masks; each part is
made once a session. The digits and their labels are as they were collected; that they stand there is our doing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
from session import once

SIDE, COUNT = 48, 150
DIGITS = ("0", "1", "7")
CONTRACT = {
    "columns": {
        "image": {"type": "image", "shape": [SIDE, SIDE], "resize": "stretch"},
        "objects": {"type": "boxes", "of": "image", "classes": list(DIGITS), "form": "xywh", "masks": True},
    }
}
TRUNKS: dict[str, dict[str, Any]] = {
    "conv": {"name": "conv", "channels": [8, 16, 32], "width": 32},
    "vit": {"name": "vit", "patch": 8, "layers": 1, "width": 32, "heads": 2, "hidden": 64},
    "convnextv2": {"name": "convnextv2", "patch": 2, "depths": [1, 1], "channels": [8, 16]},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "conv": {"name": "masked_autoencoder", "patch": 8},
    "vit": {"name": "masked_image", "patch": 8},
    "convnextv2": {"name": "dense_contrastive", "spots": 4},
}
HEAD = {"name": "detection", "width": 16, "prototypes": 4}


def params(kind: str = "conv") -> dict[str, Any]:
    """Return the parameters of all stages, on a trunk of a kind."""
    return {
        "pretrain": {"objective": OBJECTIVES[kind], "trunk": TRUNKS[kind], "epochs": 1, "batch": 32},
        "finetune": {"head": HEAD, "epochs": 14, "min_steps": 5, "batch": 16, "learning_rate": 0.006},
        "evaluate": {"lift_labels": [20], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 4},
    }


def scene(digits: np.ndarray, labels: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a picture with a digit in some of its four quarters, and the objects in it."""
    pixels = draw.integers(0, 60, (SIDE, SIDE)).astype(np.uint8)
    objects: dict[str, list[Any]] = {"bbox": [], "category": [], "segmentation": []}
    quarters = draw.permutation(4)[: draw.integers(1, 4)]
    for quarter in quarters.tolist():
        number = int(draw.integers(len(digits)))
        digit = digits[number][4:24, 4:24]
        top, left = quarter // 2 * 24 + int(draw.integers(5)), quarter % 2 * 24 + int(draw.integers(5))
        part = pixels[top : top + 20, left : left + 20]
        np.maximum(part, digit, out=part)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + 20, left : left + 20] = digit > 90
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        runs = np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=1 - mask[0, 0], append=2)))
        counts = [0, *runs.tolist()] if mask[0, 0] else runs.tolist()
        objects["bbox"].append([float(side) for side in box])
        objects["category"].append(DIGITS[int(labels[number])])
        objects["segmentation"].append(json.dumps({"size": [SIDE, SIDE], "counts": counts}))
    return pixels, objects


def table() -> pa.Table:
    """Return the raw scenes."""
    if not small.RAW.is_file():
        pytest.fail(f"{small.RAW} is missing: run `dvc pull`")
    raw = pq.read_table(small.RAW)
    of = raw["label"].to_numpy().astype(str)
    chosen = np.concatenate([np.flatnonzero(of == digit)[:100] for digit in DIGITS])
    digits = np.stack(raw["image"].take(pa.array(chosen)).to_numpy()).reshape(-1, 28, 28).astype(np.uint8)
    labels, draw = np.array([DIGITS.index(label) for label in of[chosen]]), np.random.default_rng(0)
    pictures, objects = zip(*(scene(digits, labels, draw) for _ in range(COUNT)), strict=True)
    return pa.table({"image": [picture.reshape(-1) for picture in pictures], "objects": list(objects)})


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home`."""
    return small.validated(home / "small_scenes", json.dumps(CONTRACT), table())


@once
def trunk(home: Path, kind: str) -> Path:
    """Return the trunk that pretrain makes of the dataset."""
    out = dataset(home).parent / kind / "trunk"
    small.make("pretrain", params(kind), in_dataset=dataset(home), out_trunk=out)
    return out


@once
def model(home: Path, kind: str) -> Path:
    """Return the model that finetune makes on it; a few steps only."""
    out, finetune = trunk(home, kind).with_name("model"), params(kind)["finetune"] | {"epochs": 1, "min_steps": 3}
    document = {"finetune": finetune | {"head": HEAD | {"prototypes": 2}}}
    small.make("finetune", document, in_dataset=dataset(home), in_trunk=trunk(home, kind), out_model=out)
    return out


@once
def released(home: Path) -> Path:
    """Return the folder that holds dataset, trunk, model, evaluation, release, and the store with digits@1."""
    return small.release_of(trunk(home, "conv"), dataset(home), params())
