"""Trunks: what pretraining learns and every head stands on. One folder a family, with the objectives it learns from.

To add an objective: a file in the family's folder with a class or `build` function, its Params class in parameters.py
(its `name` a literal), a line in objectives.py there and one in registry.py here. docs/add-a-problem.md has more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import read_json
from graftline.errors import InputError

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, CONFIG = "trunk.safetensors", "trunk.json"
SIZES = "sizes"
"""In a trunk's folder: the folder of those to compare it with."""


def write_config(folder: Path, kind: str, trunk: dict[str, Any], objective: dict[str, Any]) -> None:
    """Write trunk.json: the kind of trunk, its shape, and the objective that it learnt from."""
    config = {"kind": kind, "trunk": trunk, "objective": objective}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_config(folder: Path, *kinds: str) -> dict[str, Any]:
    """Return the trunk.json of a trunk of one of `kinds`. Raises InputError: it is not one, or of another kind."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"kind", "trunk", "objective"} <= config.keys():
        raise InputError(folder / CONFIG, "not a trunk's config", fix="run pretrain again")
    if config["kind"] not in kinds:
        raise InputError(
            folder / CONFIG,
            f"a trunk of kind {config['kind']!r}",
            expected=" or ".join(map(repr, kinds)),
            fix="choose a head that fits the trunk, or another pretrain.trunk",
        )
    return config


def load_weights(module: nn.Module, path: Path, *, fix: str) -> None:
    """Put the tensors in the safetensors file `path` into `module`.

    Raises:
        InputError: it is not such a file, or its tensors do not fit; `fix` says what to do.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 200 else reason[:197] + "..."
        raise InputError(path, reason, expected="tensors that fit the config beside it", fix=fix) from None
