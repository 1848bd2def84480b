"""Causal language modelling: name each token from those before it (Radford et al., 2018)."""

from __future__ import annotations

import torch

from graftline.text.batches import Packed
from graftline.trunks.text.language_modelling import LanguageModel, Targets


class CausalLM(LanguageModel):
    """Each position but a document's last one is asked for the token that follows."""

    def targets(self, batch: Packed, draw: torch.Generator) -> Targets:
        return self.held_out_targets(batch)

    def held_out_targets(self, batch: Packed) -> Targets:
        # The next position is 0 where a document ends; the row's last token ends one too.
        asked = batch.positions[0, 1:].nonzero()[:, 0]
        return Targets(batch.ids, asked, batch.ids[0, asked + 1])
