"""A ViT's last layer for its class token alone, which is all that a classifier reads of it.

Of one query the projections of keys and values need not be made for every token: q (W x + b) is (q W) x + q b, and the
mean of W x + b is W times the mean of x, + b. What comes out, and each gradient, is what the whole layer gives, but for
rounding; nearly all of the layer's work goes. Of 4 layers that is a quarter of a step, of 12 a twelfth.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.vit.modeling_vit import ViTLayer


class ClassTokenLayer(ViTLayer):
    """A layer, and on demand what it makes of the first token alone."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        class_token: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return (n, tokens, width) of (n, tokens, width), or with `class_token` the first of them, (n, 1, width)."""
        if not class_token or attention_mask is not None or _watched(self):
            whole: torch.Tensor = super().forward(hidden_states, attention_mask, **kwargs)
            return whole
        mixed = hidden_states[:, :1] + self._attend(self.layernorm_before(hidden_states))
        out: torch.Tensor = mixed + self.mlp(self.layernorm_after(mixed))
        return out

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what attention gives the first of (n, tokens, width): (n, 1, width)."""
        attention = self.attention
        heads = (attention.num_attention_heads, attention.head_dim)
        query = attention.q_proj(tokens[:, 0]).unflatten(1, heads).transpose(0, 1)  # (heads, n, size)
        keys, values = (part.weight.unflatten(0, heads) for part in (attention.k_proj, attention.v_proj))
        asked = torch.bmm(query, keys).transpose(0, 1)  # (n, heads, width)
        scores = torch.bmm(asked, tokens.transpose(1, 2))  # (n, heads, tokens)
        if attention.k_proj.bias is not None:
            scores = scores + (query * attention.k_proj.bias.view(heads)[:, None]).sum(-1).T[..., None]
        shares = (scores.float() * attention.scaling).softmax(-1).to(tokens.dtype)
        seen = torch.bmm(shares, tokens).transpose(0, 1)  # (heads, n, width)
        found = torch.bmm(seen, values.transpose(1, 2)).transpose(0, 1).flatten(1)
        if attention.v_proj.bias is not None:
            found = found + attention.v_proj.bias
        out: torch.Tensor = attention.o_proj(found)
        return out[:, None]


def _watched(layer: ViTLayer) -> bool:
    """Return whether somebody waits to be told what goes through a part that would not be called."""
    attention = layer.attention
    return any(part._forward_hooks or part._forward_pre_hooks for part in (attention.k_proj, attention.v_proj))


def shorten(network: PreTrainedModel) -> None:
    """Let the network know `class_token`: it passes it on to its layers, of which the last one heeds it."""
    network.get_submodule("vit.layers")[-1].__class__ = ClassTokenLayer  # type: ignore[index]  # a list of layers
    names: Any = network._no_split_modules  # a set once the network is built; learning/shards.py goes by it
    names.add(ClassTokenLayer.__name__)
