"""Masked items: hide a part of a history, and learn to say from the rest what is hidden.

Of a set the hidden items are drawn, of an ordered history they are the last ones. One [MASK] asks for all of them: at
one position several would be told alike, and their distribution is what a recommendation needs. BERT4Rec (Sun et al.,
2019, arXiv:1904.06690) without positions, with the multinomial likelihood of Liang et al., 2018 (arXiv:1802.05814).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.trunks.items.parameters import MaskedItemsParams
from graftline.trunks.items.trunk import ItemTrunk, padded

_LEAST = 0.1
"""Smallest share of a history that is hidden."""


class MaskedItems(nn.Module):
    """A trunk, asked for what is hidden of histories."""

    def __init__(self, trunk: ItemTrunk, params: MaskedItemsParams, dtype: str) -> None:
        super().__init__()
        self.trunk, self._params, self._dtype = trunk, params, dtype
        self._never = torch.from_numpy(~trunk.vocabulary.shown).float()

    def loss(self, histories: Sequence[torch.Tensor], seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean over histories of the mean cross entropy of their hidden items, in nats, a scalar.

        Args:
            histories: (items,) int64 numbers of each, at least two.
            seed: decides, with `step`, what is hidden and dropped.
            step: from 0.
            part: with it, this process's addend is returned.
        """
        here, count, trunk = part or World(), len(histories), self.trunk
        padding = trunk.vocabulary.padding
        ids = padded(histories, padding, torch.device("cpu"))
        draw, ordered = generator(seed, step, "mask"), trunk.vocabulary.ordered
        hidden = hide(ids != padding, draw, self._params.mask_ratio, last=ordered)
        kept = torch.rand(len(trunk.vocabulary), generator=generator(seed, step, "forget")) >= self._params.forget
        torch.manual_seed(generator(seed, step, f"dropout {here.rank}").initial_seed())
        ids, hidden, place = share(ids, here).to(trunk.bias.device), share(hidden, here), trunk.bias.device
        hidden = hidden.to(place)
        with autocast(self._dtype, place):
            vectors, bias = trunk.table(kept.to(place) if trunk.words is not None else None)
            given = ids.masked_fill(hidden, padding)
            logits = trunk.logits(trunk.states(given, vectors), vectors, bias)
        # Neither what is given nor what no history holds can be the answer.
        never = self._never.to(place).expand(len(ids), -1)
        ruled_out = nn.functional.pad(never, (0, 2)).scatter(1, given, 1.0)[:, :-2].bool()
        logs = logits.masked_fill(ruled_out, -torch.inf).log_softmax(dim=1)
        rows, columns = hidden.nonzero(as_tuple=True)
        each = hidden.sum(dim=1)[rows]
        return -(logs[rows, ids[rows, columns]] / each).sum() / count


def hide(seen: torch.Tensor, draw: torch.Generator, largest: float, *, last: bool) -> torch.Tensor:
    """Return (n, longest) bool: which items are hidden of histories, of each at least one and not all.

    Args:
        seen: (n, longest) bool: where there is an item.
        draw: decides how many are hidden of each, and which.
        largest: share of a history that may be hidden.
        last: hide the last ones.
    """
    counts = hidden_counts(seen.sum(dim=1), draw, largest)
    keys = torch.rand(seen.shape, generator=draw)
    if last:
        keys = -torch.arange(seen.shape[1]).expand(seen.shape).float()
    order = keys.masked_fill(~seen, torch.inf).argsort(dim=1)
    places = torch.empty_like(order).scatter(1, order, torch.arange(seen.shape[1]).expand_as(order))
    return places < counts[:, None]


def hidden_counts(lengths: torch.Tensor, draw: torch.Generator, largest: float) -> torch.Tensor:
    """Return (n,): how many items of histories of (n,) lengths are hidden, at least one and not all."""
    shares = _LEAST + torch.rand(len(lengths), generator=draw) * max(0.0, largest - _LEAST)
    return (shares * lengths).round().long().clamp(min=1).minimum(lengths - 1)
