"""What a model in the Hugging Face layout says of its outputs, and how they start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def name_outputs(names: Sequence[str]) -> dict[str, Any]:
    """Return what a config says about the outputs: their number and names."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def zero_layer(width: int, outputs: int) -> nn.Linear:
    """Return a layer of zeros: all outputs start equal, and the first gradients follow no random direction."""
    layer = nn.Linear(width, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero_head(network: Any, *names: str) -> None:
    """Let the layers that a network has under the first of these names that it knows start as zeros, likewise."""
    for parameter in next(getattr(network, name) for name in names if hasattr(network, name)).parameters():
        nn.init.zeros_(parameter)
