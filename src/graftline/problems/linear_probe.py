"""A linear layer on features that stay as they are, in closed form: a ridge regression on the classes.

How much it is held back, and how sure its answers are, is what tells each example best from the others alone
(leave-one-out; Allen, 1974, PRESS). Steps of gradients from a layer of zeros keep less of what a trunk knows.
"""

from __future__ import annotations

import torch
from torch import nn

_STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Of the penalty, as shares of the features' mean squared length."""
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""What the regression's values, about from 0 to 1, are multiplied by to be logits."""


def solve(
    features: torch.Tensor, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights (classes, d) and the biases (classes,) of a linear layer to logits, float64.

    Args:
        features: (n, d), of examples of any number.
        labels: (n,) int64 class indices.
        classes: how many there are; one without examples is held for rarer than one in n.
        weights: (n,) how much each example counts; None if all count alike.
    """
    count = torch.ones(len(labels)) if weights is None else weights / weights.mean()
    root = count.double().sqrt()[:, None]
    values, wanted = features.double(), nn.functional.one_hot(labels, classes).double()
    mean, share = ((root.square() * rows).mean(0) for rows in (values, wanted))
    deviation = (root * (values - mean)).square().mean(0).sqrt()
    deviation = deviation.clamp(min=1e-6 * float(deviation.max()) + 1e-12)
    rows, targets = root * (values - mean) / deviation, root * (wanted - share)
    left, size, right = torch.linalg.svd(rows, full_matrices=False)
    start = share.clamp(min=1 / (len(labels) + 1)).log()
    best: tuple[float, torch.Tensor] | None = None
    for strength in _STRENGTHS:
        kept = size.square() / (size.square() + strength * size.square().mean() * len(size) / len(rows))
        fitted = (left * kept) @ (left.T @ targets)
        own = ((left.square() * kept).sum(1, keepdim=True)).clamp(max=1 - 1e-9)
        others = (fitted - own * targets) / (1 - own) / root  # what the other examples alone say of each
        for scale in _SCALES:
            losses = nn.functional.cross_entropy(start + scale * others, labels, reduction="none")
            loss = float((losses * count).mean())
            if best is None or loss < best[0]:
                best = loss, scale * (right.T * (kept / size.clamp(min=1e-12))) @ (left.T @ targets)
    assert best is not None
    layer = (best[1] / deviation[:, None]).T
    return layer, start - layer @ mean
