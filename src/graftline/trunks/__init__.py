"""Trunks: what pretraining learns and every head stands on. One file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftline.canonical import read_json
from graftline.errors import InputError
from graftline.trunks.conv import ConvTrunk

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, CONFIG = "trunk.safetensors", "config.json"


def load_trunk(folder: Path, *, weights: bool = True) -> ConvTrunk:
    """Return the trunk in `folder`, or with `weights=False` an untrained one of its shape.

    Raises:
        InputError: the config is not one, or the weights do not fit it.
    """
    config = read_json(folder / CONFIG)
    try:
        trunk = ConvTrunk.from_config(config["trunk"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            folder / CONFIG, f"not a trunk's config ({error!r})", fix="run pretrain again"
        ) from None
    if weights:
        load_weights(trunk, folder / WEIGHTS, fix="run pretrain again")
    return trunk


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
