"""What processes of one run compute together in a forward pass, with the gradient that one process would have."""

from __future__ import annotations

from typing import Any

import torch

from graftline.learning.distributed import World, total


class _Sum(torch.autograd.Function):
    """The sum of the processes' tensors; each one's gradient is the sum of theirs too."""

    @staticmethod
    def forward(ctx: Any, addend: torch.Tensor) -> torch.Tensor:
        return total(addend.clone())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return total(grad.clone())


def summed(addend: torch.Tensor) -> torch.Tensor:
    """Return the sum of the processes' addends."""
    found: torch.Tensor = _Sum.apply(addend)  # type: ignore[no-untyped-call]
    return found


def gathered(mine: torch.Tensor, count: int, part: World) -> torch.Tensor:
    """Return all `count` rows of a step, of which these are what `distributed.share` gave this process."""
    if part.size == 1:
        return mine
    rows = mine.new_zeros(count, *mine.shape[1:])
    return summed(rows.index_copy(0, torch.arange(part.rank, count, part.size, device=mine.device), mine))
