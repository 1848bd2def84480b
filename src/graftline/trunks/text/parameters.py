"""The parameters of text trunks and of what they learn from; without torch, like all parameter models."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from graftline.tasks.parameters import Params

DECODERS = ("llama", "gpt2")


class TextParams(Params):
    """The shape of a text trunk that is trained from scratch."""

    name: Literal["text"] = "text"
    architecture: Literal["modernbert", "bert", "llama", "gpt2"] = "modernbert"
    """Encoders, for masked_lm: modernbert (pre-norm, rotary positions, gated layers; Warner et al., 2024,
    arXiv:2412.13663) or bert (Devlin et al., 2019). Decoders, for causal_lm: llama (Touvron et al., 2023) or gpt2
    (Radford et al., 2019)."""
    layers: int = Field(default=2, ge=1, le=200)
    """Transformer blocks."""
    width: int = Field(default=128, ge=8, le=16_384)
    """Length of a token's vector; a multiple of `heads`."""
    heads: int = Field(default=2, ge=1, le=256)
    """Attention heads."""
    hidden: int = Field(default=256, ge=8, le=65_536)
    """Width inside the feed-forward layer; a gated one (modernbert, llama) has two such projections."""
    max_length: int = Field(default=128, ge=8, le=131_072)
    """Tokens of the longest document; longer ones are cut into pieces."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} is no even multiple of heads {self.heads}")
        return self

    @property
    def decodes(self) -> bool:
        """Whether a token sees only what is before it."""
        return self.architecture in DECODERS


class MaskedLMParams(Params):
    """Parameters of the objective `masked_lm`."""

    name: Literal["masked_lm"] = "masked_lm"
    mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of tokens that are hidden in training (0.3 to 0.4: Wettig et al., 2023, arXiv:2202.08005). Held-out
    documents always have 0.15 hidden, the same tokens for every recipe, so that losses compare."""


class CausalLMParams(Params):
    """Parameters of the objective `causal_lm`."""

    name: Literal["causal_lm"] = "causal_lm"


TextObjectiveParams = MaskedLMParams | CausalLMParams
