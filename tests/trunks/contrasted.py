"""What every contrastive objective has to do."""

from __future__ import annotations

import math
from typing import Any

import torch


def check_learns(made: Any, images: torch.Tensor, others: int) -> None:
    """Train for 40 steps: the loss begins near chance among `others`, falls by a nat, and the projector has a part."""
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = made.loss(images, 0, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > math.log(others) - 1, "at first no better than by chance, about"
    assert sum(losses[-5:]) / 5 < losses[0] - 1
    assert all(weights.grad is not None and weights.grad.any() for weights in made.head.parameters())
