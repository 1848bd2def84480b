"""Models that read one text and write another: what a batch is, and the loss of the right next token at each place.

At each place of a target the decoder is given the right tokens before it (teacher forcing: Williams and Zipser, 1989).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from graftline.learning.device import send
from graftline.text.cross_entropy import IGNORED, chunked_cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WIDTHS, _ROWS = 4, 64
"""Widths and rows are rounded up to multiples of these: oneDNN compiles a bfloat16 kernel for each shape that it meets,
and keeps it."""


_SPREAD = 1.5
"""How many times as long as the shortest the longest text of a part may be, about."""


@dataclass(frozen=True)
class ToWrite:
    """Texts to read, and what is to be written of each."""

    source: Sequence[torch.Tensor]
    """n tensors of token ids, each as the encoder takes it."""
    target: Sequence[torch.Tensor]
    """n tensors of token ids, each with its end mark."""


def table(texts: Sequence[torch.Tensor], fill: int, most: int) -> torch.Tensor:
    """Return (n, width) int64 token ids; the longest text and some `fill` make the width, `most` at most."""
    found = pad_sequence([text.long() for text in texts], batch_first=True, padding_value=fill)
    longest = found.shape[1]
    return nn.functional.pad(found, (0, max(0, min(-longest % _WIDTHS, most - longest))), value=fill)


def read_table(network: PreTrainedModel, texts: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask`, (n, width) each, on the network's device."""
    place, config = network.device, network.config
    ids = table(texts, config.pad_token_id, config.max_position_embeddings)
    lengths = torch.tensor([len(text) for text in texts])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": send(ids, place), "attention_mask": send(mask, place)}


def written_loss(network: PreTrainedModel, batch: ToWrite) -> torch.Tensor:
    """Return the cross entropy of all targets' tokens in nats, a sum: divide by how many there are.

    `network` is transformers' BART, mBART or Marian for conditional generation.
    """
    return torch.stack([_written_loss(network, part) for part in _alike(batch)]).sum()


def _alike(batch: ToWrite) -> Iterator[ToWrite]:
    """Yield the texts in parts of about equal length: a few long texts among short ones would make all of them long."""
    order = sorted(range(len(batch.target)), key=lambda place: len(batch.target[place]))
    while order:
        most = _SPREAD * len(batch.target[order[0]]) + _WIDTHS
        end = next((n for n, place in enumerate(order) if len(batch.target[place]) > most), len(order))
        part, order = order[:end], order[end:]
        yield ToWrite([batch.source[place] for place in part], [batch.target[place] for place in part])


def _written_loss(network: PreTrainedModel, batch: ToWrite) -> torch.Tensor:
    model: Any = network
    place, config = network.device, network.config
    right = table(batch.target, IGNORED, config.max_position_embeddings)
    given = nn.functional.pad(right[:, :-1], (1, 0), value=config.decoder_start_token_id)
    given[given == IGNORED] = config.pad_token_id  # what follows a text: no place that is asked sees it
    hidden = model.model(
        **read_table(network, batch.source), decoder_input_ids=send(given, place), use_cache=False
    ).last_hidden_state
    asked = (right.flatten() != IGNORED).nonzero()[:, 0]
    more = -len(asked) % _ROWS
    answers = nn.functional.pad(right.flatten()[asked], (0, more), value=IGNORED)
    states = hidden.flatten(0, 1).index_select(0, send(nn.functional.pad(asked, (0, more)), place))
    return chunked_cross_entropy(states, model.lm_head.weight, model.final_logits_bias[0], send(answers, place))
