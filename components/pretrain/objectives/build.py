"""From parameters to the objective that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftline.components.pretrain.objectives import autoencoder, masked_autoencoder
from graftline.components.pretrain.objectives.causal_lm import CausalLM
from graftline.components.pretrain.objectives.language_modelling import LanguageModel
from graftline.components.pretrain.objectives.masked_lm import MaskedLM
from graftline.components.pretrain.objectives.params import (
    AutoencoderParams,
    ImageObjectiveParams,
    MaskedLMParams,
    TextObjectiveParams,
)
from graftline.components.pretrain.objectives.reconstruction import Reconstruction
from graftline.trunks.conv import ConvTrunk

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "objective.safetensors"
"""In an image trunk's folder: the decoder, so that a joint objective in fine-tuning goes on where pretraining ended."""


def build_objective(trunk: ConvTrunk, params: ImageObjectiveParams) -> Reconstruction:
    """Return the objective on images that `params` names, around `trunk`."""
    if isinstance(params, AutoencoderParams):
        return autoencoder.build(trunk, params)
    return masked_autoencoder.build(trunk, params)


def build_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, params: TextObjectiveParams
) -> LanguageModel:
    """Return the objective on text that `params` names, around `model`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, MaskedLMParams):
        return MaskedLM(model, tokenizer, dtype, params)
    return CausalLM(model, tokenizer, dtype)
