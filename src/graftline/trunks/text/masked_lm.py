"""Masked language modelling: hide tokens, and learn to name them from both sides (Devlin et al., 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from graftline.learning.randomness import generator
from graftline.text.batches import Packed
from graftline.trunks.text.language_modelling import LanguageModel, Targets
from graftline.trunks.text.parameters import MaskedLMParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HELD_OUT_RATIO = 0.15


class MaskedLM(LanguageModel):
    """Of the chosen tokens 80% become [MASK], 10% a random token, 10% stay."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, params: MaskedLMParams
    ) -> None:
        super().__init__(model, tokenizer, dtype)
        self._ratio, self._vocabulary = params.mask_ratio, len(tokenizer)
        assert tokenizer.mask_token_id is not None
        self._mask = tokenizer.mask_token_id

    def targets(self, batch: Packed, draw: torch.Generator) -> Targets:
        return self._hide(batch, self._ratio, draw)

    def held_out_targets(self, batch: Packed) -> Targets:
        return self._hide(batch, _HELD_OUT_RATIO, generator(0, int(batch.documents[0]), "held-out mask"))

    def _hide(self, batch: Packed, ratio: float, draw: torch.Generator) -> Targets:
        ids = batch.ids
        chosen = (torch.rand(ids.shape, generator=draw) < ratio) & ~self.is_special(ids)
        fate = torch.rand(ids.shape, generator=draw)
        other = torch.randint(self._vocabulary, ids.shape, generator=draw)
        seen = torch.where(chosen & (fate < 0.8), self._mask, ids)
        seen = torch.where(chosen & (fate >= 0.9), other, seen)
        asked = chosen[0].nonzero()[:, 0]
        return Targets(seen, asked, ids[0, asked])
