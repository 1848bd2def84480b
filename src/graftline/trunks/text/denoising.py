"""Denoising: write a text whose spans are hidden, each behind one mask (Lewis et al., 2020, arXiv:1910.13461, 2.2).

The decoder learns to write whole texts and the encoder to read them; of several columns or languages the model learns
all of them (Liu et al., 2020, arXiv:2001.08210).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.text.batches import Packed
from graftline.trunks.text.encoder_decoder import ToWrite, written_loss
from graftline.trunks.text.language_modelling import TextObjective
from graftline.trunks.text.parameters import DenoisingParams
from graftline.trunks.text.trunk import attend

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HELD_OUT = DenoisingParams()


class Denoising(TextObjective):
    """Reads a text with holes, and writes it without."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str, params: DenoisingParams
    ) -> None:
        """Wrap `model`, an AutoModelForSeq2SeqLM; `dtype` is `float32` or `bfloat16`."""
        super().__init__(model, dtype)
        assert tokenizer.mask_token_id is not None
        self._mask, self._params = tokenizer.mask_token_id, params

    def loss(self, batch: Packed, draw: torch.Generator, part: World | None = None) -> torch.Tensor:
        texts = self.holed(batch, self._params, draw)
        count = sum(map(len, texts.target))
        if part is not None and part.size > 1:
            mine = share(torch.arange(len(texts.target)), part).tolist()
            texts = ToWrite([texts.source[i] for i in mine], [texts.target[i] for i in mine])
        return self._cross_entropy(texts, learning=True) / count

    @torch.no_grad()
    def held_out_loss(self, batches: list[Packed]) -> float:
        was_training = self.training
        self.eval()
        total, count = 0.0, 0
        for batch in batches:
            draw = generator(0, int(batch.documents[0]), "held-out mask")
            texts = self.holed(batch, _HELD_OUT, draw)
            total += float(self._cross_entropy(texts, learning=False))
            count += sum(map(len, texts.target))
        self.train(was_training)
        return total / count

    def holed(self, batch: Packed, params: DenoisingParams, draw: torch.Generator) -> ToWrite:
        """Return the documents, and each with holes; a pure function of the draws."""
        lengths = torch.tensor([length for count, length in batch.runs for _ in range(count)])
        ids = batch.ids[0]
        source, kept = infill(ids, lengths, params.mask_ratio, params.span, self._mask, draw)
        return ToWrite(source.split(kept.tolist()), ids.split(lengths.tolist()))

    def _cross_entropy(self, texts: ToWrite, *, learning: bool) -> torch.Tensor:
        attend(self.model, max(map(len, texts.target)), learning=learning)
        with autocast(self._dtype, self.model.device):
            return written_loss(self.model, texts)


def infill(
    ids: torch.Tensor, lengths: torch.Tensor, ratio: float, span: float, mask: int, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return documents with spans hidden, end to end, and the (n,) tokens that each has then.

    A span has 1 + Poisson(span - 1) tokens; one mask stands for it, and for spans that touch. A document's last token,
    its end mark, is never hidden.

    Args:
        ids: (tokens,) of n documents, end to end.
        lengths: (n,) tokens of each.
        ratio: share of tokens that are hidden, about.
        span: tokens of a span, on average.
        mask: the token id that stands for hidden ones.
        draw: for what is hidden.
    """
    ends = lengths.cumsum(0) - 1  # of each document: the end mark
    last = ends.repeat_interleave(lengths)
    places = torch.arange(len(ids))
    # Where spans of one length begin with a chance p at each place, a token is under none with (1 - p) ** span.
    begins = (torch.rand(len(ids), generator=draw) < 1 - (1 - ratio) ** (1 / span)) & (places < last)
    sizes = 1 + torch.poisson(torch.full((len(ids),), span - 1), generator=draw).long()
    starts = places[begins]
    stops = torch.minimum(starts + sizes[begins], last[begins])
    change = torch.zeros(len(ids) + 1, dtype=torch.long)
    change.index_add_(0, starts, torch.ones_like(starts))
    change.index_add_(0, stops, -torch.ones_like(stops))
    hidden = change.cumsum(0)[:-1] > 0
    kept = ~hidden | ~hidden.roll(1)  # of each run its first; the last token of all is never hidden
    counts = torch.zeros(len(lengths), dtype=torch.long)
    counts.index_add_(0, torch.repeat_interleave(torch.arange(len(lengths)), lengths), kept.long())
    return torch.where(hidden, mask, ids)[kept], counts
