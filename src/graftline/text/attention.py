"""Attention over packed documents: many documents in one row of tokens, none of which sees another.

A packed row (1, tokens) holds whole documents end to end, sorted by length, so that documents of equal length lie
side by side. Attention then is one call of scaled dot product attention for each length, on views: no padding is
computed and no mask is built. Token-wise layers see one long row. The model's own code is transformers'; this
function is registered there (https://huggingface.co/docs/transformers/attention_interface).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "graftline_packed"

SHORT = 128
"""Tokens up to which two plain matrix products beat the fused kernel on a CPU: 3 to 5 times with its backward pass."""


@dataclass(frozen=True)
class Runs:
    """The stretches of equally long documents in a packed row.

    An object, not a list: torch.compile would specialise a graph for the numbers in a list.
    """

    stretches: tuple[tuple[int, int], ...]
    """(documents, tokens each) of each stretch, in order."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.stretches)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    runs: Runs,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return (1, tokens, heads, size) from (1, heads, tokens, size) queries; keys and values may have fewer heads.

    `runs` is passed to the model's forward and travels here through its keyword arguments.
    """
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    grouped = query.shape[1] != key.shape[1]
    sizes = [count * length for count, length in runs]
    parts = zip(runs, *(tensor[0].split(sizes, dim=1) for tensor in (query, key, value)), strict=True)
    mixed = []
    for (count, length), q, k, v in parts:
        q, k, v = (t.unflatten(1, (count, length)).transpose(0, 1) for t in (q, k, v))  # (count, heads, length, size)
        if length <= SHORT and q.device.type == "cpu" and not dropout:
            out = _short_attention(q, k, v, causal, scaling)
        else:
            out = scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=causal and length > 1, scale=scaling, enable_gqa=grouped
            )
        mixed.append(out.transpose(1, 2).flatten(0, 1))  # (count * length, heads, size)
    return torch.cat(mixed)[None], None


def _short_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scaling: float | None
) -> torch.Tensor:
    """Return what scaled_dot_product_attention does, for (documents, heads, length, size) tensors.

    In float32 whatever the model computes in: these products are small, and their shapes differ from batch to batch,
    while oneDNN compiles a bfloat16 kernel for each shape and keeps it.
    """
    dtype = query.dtype
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        if query.shape[1] != key.shape[1]:
            repeats = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        scores = (query @ key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if causal:
            length = query.shape[-2]
            future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        return (scores.softmax(-1) @ value).to(dtype)


def _no_mask(*_: Any, **__: Any) -> None:
    """Packed attention needs no mask: `runs` says it all."""
    return None


@cache
def register() -> None:
    """Make `attn_implementation="graftline_packed"` known to transformers.

    torch.compile leaves the function alone. It is told so here: that loads the compiler, for half a second or more,
    which whoever only reads parameters would wait for.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
    AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """Run `model`, a transformers model, with packed attention inside the block, and as before after it."""
    register()
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
