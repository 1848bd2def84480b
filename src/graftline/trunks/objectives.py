"""From parameters to the objective that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftline.trunks.conv import autoencoder, masked_autoencoder
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.objective_parameters import (
    AutoencoderParams,
    ImageObjectiveParams,
    MaskedLMParams,
    TextObjectiveParams,
)
from graftline.trunks.text.causal_lm import CausalLM
from graftline.trunks.text.language_modelling import LanguageModel
from graftline.trunks.text.masked_lm import MaskedLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "objective.safetensors"
"""In an image trunk's folder: the decoder, so that a joint objective in fine-tuning goes on where pretraining ended."""


def build_objective(trunk: ConvTrunk, params: ImageObjectiveParams, dtype: str = "float32") -> Reconstruction:
    """Return the objective on images that `params` names, around `trunk`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, AutoencoderParams):
        return autoencoder.build(trunk, params, dtype)
    return masked_autoencoder.build(trunk, params, dtype)


def build_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, params: TextObjectiveParams
) -> LanguageModel:
    """Return the objective on text that `params` names, around `model`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, MaskedLMParams):
        return MaskedLM(model, tokenizer, dtype, params)
    return CausalLM(model, tokenizer, dtype)
