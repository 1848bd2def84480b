"""The small task of digits with trunks of transformers' own classes, a folder a kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import small
from session import once

TRUNKS: dict[str, dict[str, Any]] = {
    "vit": {"name": "vit", "patch": 7, "layers": 2, "width": 32, "heads": 2, "hidden": 64},
    "convnextv2": {"name": "convnextv2", "patch": 4, "depths": [1, 1], "channels": [16, 32]},
    "resnet": {"name": "resnet", "stem": 8, "depths": [1, 1], "channels": [16, 32]},
}


def params(kind: str) -> dict[str, Any]:
    """Return the parameters of all stages."""
    objective = {"name": "masked_image", "patch": 7}
    pretrain = {"epochs": 1, "batch": 64, "objective": objective, "trunk": TRUNKS[kind]}
    return {**small.PARAMS, "pretrain": pretrain, "finetune": {**small.PARAMS["finetune"], "epochs": 1}}


@once
def trunk(home: Path, kind: str) -> Path:
    """Return the trunk that pretrain makes of the dataset of digits; a folder beside it."""
    out = small.dataset(home).with_name(f"trunk-{kind}")
    small.make("pretrain", params(kind), in_dataset=small.dataset(home), out_trunk=out)
    return out


@once
def model(home: Path, kind: str) -> Path:
    """Return the model that finetune makes on it."""
    out = small.dataset(home).with_name(f"model-{kind}")
    small.make("finetune", params(kind), in_dataset=small.dataset(home), in_trunk=trunk(home, kind), out_model=out)
    return out
