"""A model that has learned nothing, to compare with."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from graftline.learning.randomness import generator

M = TypeVar("M", bound=nn.Module)


def shuffled(model: M, seed: int) -> M:
    """Return the model with the numbers of each of its weights in a random order: nothing learned is left.

    J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, compare with a model drawn anew. A new head here
    starts with zeros, and all its gradients are zero; a shuffled one keeps each layer's scale.
    """
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            order = torch.randperm(weight.numel(), generator=generator(seed, number, "random weights"))
            weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))
    return model
