"""Cross entropy of a prediction head a few positions at a time: the whole table of logits never exists.

Logits, their softmax and its gradient are made chunk by chunk while they are in the processor's cache, and the
gradients are ready when the forward pass ends (as in Liger Kernel: Hsu et al., 2024, arXiv:2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch

IGNORED = -100
CHUNK = 512
"""Positions at once: with a vocabulary of 4,096, 4 MB in bfloat16."""


def chunked_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, answers: torch.Tensor
) -> torch.Tensor:
    """Return the summed cross entropy of `hidden @ weight.T + bias`, a float32 scalar.

    Args:
        hidden: (n, width).
        weight: (vocabulary, width).
        bias: (vocabulary,).
        answers: (n,) int64; IGNORED only in the last CHUNK.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    wanted = torch.is_grad_enabled()
    with torch.autocast(kind, enabled=False):
        total: torch.Tensor = _Chunked.apply(hidden, weight, bias, answers, dtype, wanted)  # type: ignore[no-untyped-call]
    return total


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        answers: torch.Tensor,
        dtype: torch.dtype,
        wanted: bool,
    ) -> torch.Tensor:
        states, table = hidden.to(dtype), weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        d_states = torch.empty_like(states)
        d_weight = torch.zeros_like(weight)
        d_bias = None if bias is None else torch.zeros_like(bias)
        for start in range(0, len(states), CHUNK):
            part, right = states[start : start + CHUNK], answers[start : start + CHUNK, None]
            last = start + CHUNK >= len(states)
            logits = torch.nn.functional.linear(part, table, offset).float()
            logits -= logits.logsumexp(1, keepdim=True)
            place = right.clamp(min=0) if last else right
            right_log = logits.gather(1, place)
            total -= (right_log * (right != IGNORED) if last else right_log).sum()
            if not wanted:
                continue
            slope = logits.exp_()  # softmax, and 1 less at the answer
            slope.scatter_(1, place, right_log.exp() - 1)
            if last:
                slope *= right != IGNORED
            if d_bias is not None:
                d_bias += slope.sum(0)
            slope = slope.to(dtype)
            d_states[start : start + CHUNK] = slope @ table
            d_weight += slope.T @ part
        ctx.save_for_backward(d_states, d_weight, d_bias)
        ctx.kind = hidden.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_states, d_weight, d_bias = ctx.saved_tensors
        scaled = d_states.to(torch.float32) * grad
        return (scaled.to(ctx.kind), d_weight * grad, None if d_bias is None else d_bias * grad, None, None, None)
