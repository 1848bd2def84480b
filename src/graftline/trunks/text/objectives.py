"""From parameters to the objective on text that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftline.trunks.text.causal_lm import CausalLM
from graftline.trunks.text.denoising import Denoising
from graftline.trunks.text.language_modelling import TextObjective
from graftline.trunks.text.masked_lm import MaskedLM
from graftline.trunks.text.parameters import DenoisingParams, MaskedLMParams, TextObjectiveParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def build_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, params: TextObjectiveParams
) -> TextObjective:
    """Return the objective on text that `params` names, around `model`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, MaskedLMParams):
        return MaskedLM(model, tokenizer, dtype, params)
    if isinstance(params, DenoisingParams):
        return Denoising(model, tokenizer, dtype, params)
    return CausalLM(model, tokenizer, dtype)
