"""Parameters that problems on text share; without torch, like all parameter models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.learning.parameters import Precision
from graftline.problems.scores import ProblemParams
from graftline.tasks.parameters import Params


class Lora(Params):
    """Low-rank adapters instead of the trunk's weights (Hu et al., 2021, arXiv:2106.09685)."""

    rank: int = Field(default=8, ge=1, le=1024)
    """Rank of each adapter."""
    alpha: int = Field(default=16, ge=1, le=10_000)
    """The adapters' output is scaled by alpha / rank."""
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the linear layers that get an adapter, such as `Wqkv`; null for all of the trunk's."""


class TransformerParams(ProblemParams):
    """Parameters of every head on one of transformers' models."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations dropped in training, in every place where the architecture has dropout."""
    precision: Precision = "auto"
    """Arithmetic of training and of the lift's answers; auto is bfloat16 where the processor computes in it, of
    clips, of questions and where text is written from text on a GPU only. The weights stay float32, and so does
    what a released model answers."""
    lora: Lora | None = None
    """Train low-rank adapters and leave the trunk's weights; they are merged into the weights in the end."""


class TextHeadParams(TransformerParams):
    """Parameters of every text head."""

    max_tokens: int = Field(default=256, ge=8, le=1_048_576)
    """Longest input in tokens; the rest of a longer one is cut off."""


class PooledParams(TextHeadParams):
    """Parameters of the heads that tell something of a whole document."""

    pooling: Literal["mean", "cls"] = "mean"
    """How a ModernBERT document becomes one vector: the mean of its tokens, or the first one. BERT takes the
    first, a decoder the last, whatever this says: transformers' classes offer no choice."""


class TextClassificationParams(TextHeadParams):
    """Parameters of the heads that tell a class."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""
