"""The parameters of each objective; without torch, so that a pipeline is compiled and checked where there is none."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from graftline.learning.parameters import Augmentation
from graftline.tasks.parameters import Params


class ObjectiveParams(Params):
    """What the parameters of every objective say."""

    name: str

    family: ClassVar[str]
    """The family of trunks that it trains."""
    needs: ClassVar[str]
    """That family's trunks, for people."""
    decodes: ClassVar[bool] = False
    """Whether a token sees only what is before it."""
    tokens: ClassVar[Literal["wordpiece", "bpe"]] = "wordpiece"
    """The kind of tokenizer that has the special tokens which it needs."""


class _OnImages(ObjectiveParams):
    family: ClassVar[str] = "conv"
    needs: ClassVar[str] = "a conv trunk"


class _OnText(ObjectiveParams):
    family: ClassVar[str] = "text"
    needs: ClassVar[str] = "a text trunk or a rootstock"


class AutoencoderParams(_OnImages):
    """Parameters of the objective `autoencoder`."""

    name: Literal["autoencoder"] = "autoencoder"
    augmentation: Augmentation = Augmentation()
    """How the input is warped; the target is not."""


class MaskedAutoencoderParams(_OnImages):
    """Parameters of the objective `masked_autoencoder`."""

    name: Literal["masked_autoencoder"] = "masked_autoencoder"
    mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of patches that are hidden, above 0 and below 1."""
    patch: int = Field(default=4, ge=1, le=64)
    """Height and width of a patch, in pixels."""
    augmentation: Augmentation = Augmentation()
    """How the input is warped; the target is not."""


class MaskedLMParams(_OnText):
    """Parameters of the objective `masked_lm`."""

    name: Literal["masked_lm"] = "masked_lm"
    mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of tokens that are hidden in training (0.3 to 0.4: Wettig et al., 2023, arXiv:2202.08005). Held-out
    documents always have 0.15 hidden, the same tokens for every recipe, so that losses compare."""


class CausalLMParams(_OnText):
    """Parameters of the objective `causal_lm`."""

    name: Literal["causal_lm"] = "causal_lm"

    decodes: ClassVar[bool] = True
    tokens: ClassVar[Literal["wordpiece", "bpe"]] = "bpe"


ImageObjectiveParams = AutoencoderParams | MaskedAutoencoderParams
TextObjectiveParams = MaskedLMParams | CausalLMParams
