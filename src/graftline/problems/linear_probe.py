"""A linear layer on features that stay as they are, in closed form: a ridge regression on the classes.

How sure its answers are is what tells examples best that are left out, one of each class at a time. How much it is held
back is fixed: chosen in the same way it came out too small, and cost up to 1.6 points (docs/log.md).
"""

from __future__ import annotations

import torch
from torch import nn

_STRENGTH = 0.3
"""Of the penalty, as a share of the features' mean squared length."""
_FOLDS = 10
"""Times that examples are left out, at most; then several of each class at a time."""
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
    folds = _folds(labels)
    order = torch.cat(folds)
    penalty = _STRENGTH * size.square().sum() / len(rows) + 1e-12  # of constant features too
    kept = size.square() / (size.square() + penalty)
    fitted = (left * kept) @ (left.T @ targets)
    others = torch.cat([_left_out(left[fold], kept, targets[fold], fitted[fold]) for fold in folds]) / root[order]
    losses = [nn.functional.cross_entropy(start + scale * others, labels[order], reduction="none") for scale in _SCALES]
    scale = _SCALES[int(torch.stack([(count[order] * loss).sum() for loss in losses]).argmin())]
    layer = (scale * (right.T * (kept / size.clamp(min=1e-12))) @ (left.T @ targets) / deviation[:, None]).T
    return layer, start - layer @ mean


def _folds(labels: torch.Tensor) -> list[torch.Tensor]:
    """Return the places of the examples in folds that have as many of each class, or one less."""
    order, sizes = labels.argsort(stable=True), labels.bincount()
    number = torch.empty_like(labels)
    number[order] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    number %= _FOLDS
    return [torch.where(number == fold)[0] for fold in range(int(number.max()) + 1)]


def _left_out(left: torch.Tensor, kept: torch.Tensor, targets: torch.Tensor, fitted: torch.Tensor) -> torch.Tensor:
    """Return what the regression on all other rows says of these: (k, classes).

    Of all rows' regression these take their own part back (Cook and Weisberg, 1982, the deletion formula).
    """
    own = (left * kept) @ left.T
    missed: torch.Tensor = torch.linalg.solve(torch.eye(len(left), dtype=left.dtype) - own, targets - fitted)
    return targets - missed
