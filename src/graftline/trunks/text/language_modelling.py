"""What the objectives on text share, and the two of language modelling: a transformers model over packed documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.text.attention import Runs, packed
from graftline.text.batches import Packed
from graftline.text.cross_entropy import IGNORED, chunked_cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_ROUND = 64
"""A row's tokens and the asked positions are rounded up to a multiple of this: oneDNN compiles a kernel for each shape
that it meets, which took more memory than the model."""


@dataclass(frozen=True)
class Targets:
    """What a batch asks for. It is made on the CPU, so that a GPU is never waited for."""

    inputs: torch.Tensor
    """(1, tokens) int64: what the model sees."""
    asked: torch.Tensor
    """(asked,) int64: the positions in the row at which it is asked, ascending."""
    answers: torch.Tensor
    """(asked,) int64: the token that is right at each."""


class TextObjective(nn.Module, ABC):
    """What a model learns from documents without labels."""

    def __init__(self, model: PreTrainedModel, dtype: str) -> None:
        super().__init__()
        self.model = model
        self._dtype = dtype

    @abstractmethod
    def loss(self, batch: Packed, draw: torch.Generator, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of the asked tokens in nats, a scalar.

        With `part`, return this process's addend of it: the sum over its documents, divided by the count of all.
        """

    @abstractmethod
    def held_out_loss(self, batches: list[Packed]) -> float:
        """Return the mean cross entropy of what is asked of held-out documents, in nats."""


class LanguageModel(TextObjective):
    """Asks a model for tokens of packed documents; only the asked positions go through the prediction head."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str) -> None:
        """Wrap `model`, an AutoModelForMaskedLM or AutoModelForCausalLM; `dtype` is `float32` or `bfloat16`."""
        super().__init__(model, dtype)
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._special = torch.tensor(sorted(tokenizer.all_special_ids))

    @abstractmethod
    def targets(self, batch: Packed, draw: torch.Generator) -> Targets:
        """Return what training asks of the batch; a pure function of it and the draws."""

    @abstractmethod
    def held_out_targets(self, batch: Packed) -> Targets:
        """Return what is asked of held-out documents: the same for every training recipe."""

    def loss(self, batch: Packed, draw: torch.Generator, part: World | None = None) -> torch.Tensor:
        wanted = self.targets(batch, draw)
        count = len(wanted.asked)
        batch, wanted = _share(batch, wanted, part or World())
        return self._cross_entropy(batch, wanted) / max(count, 1)

    @torch.no_grad()
    def held_out_loss(self, batches: list[Packed]) -> float:
        was_training = self.training
        self.eval()
        wanted = [self.held_out_targets(batch) for batch in batches]
        total = sum(self._cross_entropy(b, w).double() for b, w in zip(batches, wanted, strict=True))
        self.train(was_training)
        return float(total) / sum(len(w.asked) for w in wanted)

    def _cross_entropy(self, batch: Packed, wanted: Targets) -> torch.Tensor:
        """Return the summed cross entropy."""
        device = self.model.device
        rest = -batch.ids.shape[1] % _ROUND
        runs = Runs((*batch.runs, (1, rest))) if rest else batch.runs
        row = (
            nn.functional.pad(wanted.inputs, (0, rest), value=self._padding),
            nn.functional.pad(batch.positions, (0, rest)),
            nn.functional.pad(wanted.asked, (0, -len(wanted.asked) % _ROUND)),
            nn.functional.pad(wanted.answers, (0, -len(wanted.asked) % _ROUND), value=IGNORED),
        )
        inputs, positions, asked, answers = (send(tensor, device) for tensor in row)
        with autocast(self._dtype, device), packed(self.model):
            hidden = self.model.base_model(
                input_ids=inputs, position_ids=positions, runs=runs, use_cache=False
            ).last_hidden_state[0]
            states, last = self._before_logits(hidden.index_select(0, asked))
            return chunked_cross_entropy(states, last.weight, last.bias, answers)

    def _before_logits(self, hidden: torch.Tensor) -> tuple[torch.Tensor, nn.Linear]:
        """Return what the model's last layer makes (asked, vocabulary) logits of, and that layer."""
        model: Any = self.model
        if hasattr(model, "cls"):  # bert
            return model.cls.predictions.transform(hidden), model.cls.predictions.decoder
        if hasattr(model, "head"):  # modernbert
            return model.head(hidden), model.decoder
        return hidden, model.lm_head  # decoders

    def is_special(self, ids: torch.Tensor) -> torch.Tensor:
        """Return where token ids are special ones ([CLS], [SEP], ...)."""
        return torch.isin(ids, self._special)


def _share(batch: Packed, wanted: Targets, part: World) -> tuple[Packed, Targets]:
    """Return the documents of this process, every `part.size`-th one, and what is asked of them."""
    if part.size == 1:
        return batch, wanted
    lengths = torch.tensor([length for count, length in batch.runs for _ in range(count)])
    mine = torch.zeros(len(lengths), dtype=torch.bool)
    mine[share(torch.arange(len(lengths)), part)] = True
    kept = mine.repeat_interleave(lengths)
    found, counts = lengths[mine].unique(return_counts=True)
    runs = Runs(tuple((int(count), int(length)) for length, count in zip(found, counts, strict=True)))
    own = Packed(batch.ids[:, kept], batch.positions[:, kept], runs, batch.documents[mine])
    here = kept[wanted.asked]
    asked = (kept.cumsum(0) - 1)[wanted.asked[here]]  # the positions in the shorter row
    return own, Targets(wanted.inputs[:, kept], asked, wanted.answers[here])
