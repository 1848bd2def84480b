"""Optimizers: AdamW for everything, or Muon for matrices and AdamW for the rest.

AdamW: Loshchilov and Hutter, 2019, arXiv:1711.05101. Muon makes each update of a matrix orthogonal: Jordan et al.,
2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn


def build_optimizers(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    name: Literal["adamw", "muon"],
    learning_rate: float,
    matrix_rate: float,
    weight_decay: float,
    embeddings: set[int],
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of the named weights.

    Args:
        named: the weights and their names; those that need no gradient are left out.
        name: `adamw` for all weights, or `muon` for the matrices and adamw for the rest.
        learning_rate: peak rate of AdamW.
        matrix_rate: peak rate of Muon.
        weight_decay: of matrices; vectors (biases, norms) and embeddings have none.
        embeddings: `id` of each matrix that is a table of vectors or the prediction head, not a layer's matrix.
    """
    weights = [weight for _, weight in named if weight.requires_grad]
    matrices = [weight for weight in weights if weight.ndim == 2 and id(weight) not in embeddings]
    inside = {id(weight) for weight in matrices}
    others = [weight for weight in weights if id(weight) not in inside]
    if name == "adamw":
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        return [_adamw([group for group in groups if group["params"]], learning_rate)]
    found: list[torch.optim.Optimizer] = [_adamw([{"params": others, "weight_decay": 0.0}], learning_rate)]
    if matrices:
        found.insert(0, torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay))
    return found


def _adamw(groups: list[dict[str, object]], rate: float) -> torch.optim.AdamW:
    # 0.98: with masked positions only, gradients are noisy from step to step (Liu et al., 2019, arXiv:1907.11692)
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
