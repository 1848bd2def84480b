"""What the head of ratings computes: biases, and beside them what the trunk knows of items.

All in deviations of the training ratings from their mean. With x the vector of an item (its own and its words', over
layer normalisation without weights), z the trunk's state of what is given (as masked items are told from) and y what
was given; d is the width, n how many are given:

    item      B_i = sum_i / (count_i + ridge)  +  w . x_i / sqrt(d)  +  c bias_i
    user      a, s: the line through (B_j, y_j) of what is given, drawn to a = 0, s = 1 (biases.py)
    left      e_j = y_j - a - s B_j
    likeness  p_ij ~ exp(x_i M x_j / sqrt(d)), with a place for none, of value 0, among the j
    rating    a + s B_i  +  v . (z * x_i) / sqrt(d)  +  g sum_j p_ij e_j  +  x_i N (sum_j e_j x_j) / (d sqrt(n + 1))

`sum`, `count` and the ridges are solved before the first step (Koren et al., 2009). w, c, v, g and N begin at 0 and M
as the identity: it begins as the model of biases, and neighbours (B. Sarwar et al., "Item-based collaborative
filtering", WWW 2001; by attention: X. He et al., NAIS, arXiv:1809.07053) are those that the trunk has near one another.
The last term tells unlike items too, whose ratings go the other way (Y. Koren, "Factorization meets the neighborhood",
KDD 2008, eq. 13, with the trunk's vectors as factors).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from graftline.problems.rating.biases import Ridges

_NONE = 2.0
"""The first logit of being like nothing that is given."""


@dataclass(frozen=True)
class Known:
    """What the trunk knows, in float32."""

    vectors: torch.Tensor
    """(items, width) of each item."""
    bias: torch.Tensor
    """(items,)."""
    states: torch.Tensor
    """(n, width) of what is given of each user."""


@dataclass(frozen=True)
class Rows:
    """Items of n users, (n, any) each."""

    ids: torch.Tensor
    """int64, below 0 of what is unknown or absent."""
    own: torch.Tensor | None = None
    """float32: what the user's own rating adds to the item's sum, which is taken off; None of users that are not in."""


class RatingHead(nn.Module):
    """Ratings of items by users, in deviations from the mean."""

    sums: torch.Tensor
    """(items,) of each item's ratings, each less its user's mean."""
    counts: torch.Tensor
    """(items,)."""
    ridges: torch.Tensor
    """(3,): of items, of users, of users' slopes."""
    scale: torch.Tensor
    """(4,) float64: the training ratings' mean, deviation, least and largest, in the label's unit."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(items))
        self.register_buffer("counts", torch.zeros(items))
        self.register_buffer("ridges", torch.ones(3))
        self.register_buffer("scale", torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64))
        self.by_item, self.by_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(1))
        self.by_state, self.gain = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(1))
        self.cross = nn.Parameter(torch.zeros(width, width))
        self.match, self.none = nn.Parameter(torch.eye(width)), nn.Parameter(torch.full((1,), _NONE))

    def take(self, sums: torch.Tensor, counts: torch.Tensor, ridges: Ridges, scale: tuple[float, ...]) -> None:
        """Take what is solved before the first step."""
        self.sums.copy_(sums)
        self.counts.copy_(counts)
        self.ridges.copy_(torch.tensor([ridges.item, ridges.user, ridges.slope]))
        self.scale.copy_(torch.tensor(scale, dtype=torch.float64))

    def standard(self, ratings: torch.Tensor) -> torch.Tensor:
        """Return ratings in deviations from the mean, float32 where the head is."""
        mean, deviation = self.scale[:2].tolist()
        found: torch.Tensor = ((ratings - mean) / deviation).to(self.sums)
        return found

    def rating(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return outputs as ratings, float64 on the CPU, none outside the training ratings."""
        mean, deviation, least, largest = self.scale.tolist()
        found: torch.Tensor = (outputs.double().cpu() * deviation + mean).clamp(least, largest)
        return found

    def forward(
        self, known: Known, given: Rows, ratings: torch.Tensor, seen: torch.Tensor, asked: Rows,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return (n, asked) float32.

        Args:
            known: of the trunk.
            given: (n, given) items.
            ratings: (n, given) standard ratings of them.
            seen: (n, given) bool: which count.
            asked: (n, asked) items.
            kept: (items,) bool: of the others it is not known what anybody said; None for all.
        """
        table = nn.functional.layer_norm(known.vectors, known.vectors.shape[1:])
        theirs, ours = _of(table, given.ids), _of(table, asked.ids)
        of_given, of_asked = (
            self._items(rows, vectors, known.bias, kept) for rows, vectors in ((given, theirs), (asked, ours))
        )
        weight = seen.to(ratings)
        mean, slope = self._lines(of_given, ratings, weight)
        left = (ratings - mean - slope * of_given) * weight
        likeness = (ours @ self.match) @ theirs.transpose(1, 2) / ours.shape[2] ** 0.5
        likeness = likeness.masked_fill(~seen[:, None], -torch.inf)
        none = self.none.expand(*likeness.shape[:2], 1)
        shares = torch.cat([likeness, none], dim=2).softmax(dim=2)[:, :, :-1]
        root = ours.shape[2] ** 0.5
        by_state = (known.states[:, None] * ours) @ self.by_state / root
        by_likeness = self.gain * (shares @ left[:, :, None])[:, :, 0]
        user = (left[:, None] @ theirs) / (weight.sum(dim=1) + 1).sqrt()[:, None, None]
        by_cross = ((ours @ self.cross) @ user.transpose(1, 2))[:, :, 0] / ours.shape[2]
        found: torch.Tensor = mean + slope * of_asked + by_state + by_likeness + by_cross
        return found

    def _items(self, rows: Rows, vectors: torch.Tensor, bias: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """Return (n, any) how high items are rated as a rule."""
        sums, counts = (self.sums, self.counts) if kept is None else (self.sums * kept, self.counts * kept)
        total, count = _of(sums[:, None], rows.ids)[..., 0], _of(counts[:, None], rows.ids)[..., 0]
        if rows.own is not None:
            total, count = torch.where(count > 0, total - rows.own, 0.0), (count - 1).clamp(min=0)
        by_vector = (
            vectors @ self.by_item / vectors.shape[2] ** 0.5 + self.by_bias * _of(bias[:, None], rows.ids)[..., 0]
        )
        found: torch.Tensor = total / (count + self.ridges[0]) + by_vector
        return found

    def _lines(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (n, 1) each user's mean and slope, as `biases.lines` does."""
        _, user, slope = self.ridges
        parts = (weight, weight * x, weight * x * x, weight * y, weight * x * y)
        n, sx, sxx, sy, sxy = (part.sum(dim=1, keepdim=True) for part in parts)
        n, sxx, sxy = n + user, sxx + slope, sxy + slope
        area = n * sxx - sx * sx
        return (sxx * sy - sx * sxy) / area, (n * sxy - sx * sy) / area


def _of(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return (n, any, width): each item's row of a table, zeros of an unknown one."""
    return nn.functional.embedding(ids.clamp(min=0), table) * (ids >= 0)[..., None]
