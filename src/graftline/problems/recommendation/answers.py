"""Rankings of all items for each user, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.problems.answers import Answers
from graftline.problems.documents import by_length, token_positions
from graftline.problems.recommendation.examples import UNKNOWN, Histories
from graftline.problems.recommendation.scores import COLD, DEBIASED, REACH, RECALL, WARM, ndcg_rows, recall_rows
from graftline.score import Floats, Integers, RowStatistics, Score
from graftline.trunks.items.vocabulary import Vocabulary

if TYPE_CHECKING:
    from graftline.dataset import Schema

_RANKED = 20_000_000  # scores that are compared at once: 80 MB
Scorer = Callable[[Histories], torch.Tensor]
"""Histories to (n, items) float32 scores on the CPU, the best item the highest."""


@dataclass(frozen=True, eq=False)
class Rankings(Answers):
    """Where each held-out item stands in its user's ranking of all items that are not given."""

    vocabulary: Vocabulary
    of: Integers
    """(m,) whose each held-out item is, a place in `rows`."""
    items: Integers
    """(m,) its number, or UNKNOWN."""
    ranks: Integers
    """(m,) its rank from 0, among all items; -1 if it is unknown."""
    own_ranks: Integers
    """(m,) likewise among those of its kind: that train shows, or does not."""
    top: Integers
    """(n, some) the best items, the best one first; UNKNOWN where all that are not given are ranked."""
    shares: NDArray[np.float32]
    """(n, some) their probabilities."""

    def statistics(self, score: Score) -> RowStatistics:
        if score == RECALL:
            return recall_rows(self.rows, self.of, self.ranks)
        if score in (WARM, COLD):
            chosen = (self.items != UNKNOWN) & (self._shown == (score == WARM))
            return ndcg_rows(score, self.rows, self.of[chosen], self.own_ranks[chosen])
        return ndcg_rows(score, self.rows, self.of, self.ranks, self._rarity if score == DEBIASED else None)

    @property
    def _shown(self) -> NDArray[np.bool_]:
        """(m,) whether train shows an item; false of unknown ones."""
        found: NDArray[np.bool_] = self.vocabulary.shown[self.items] & (self.items != UNKNOWN)
        return found

    @property
    def _rarity(self) -> Floats:
        """(m,) 1 / sqrt(users + 1): the inverse of how likely a user comes upon an item, if that goes by its users.

        L. Yang et al., "Unbiased offline recommender evaluation for missing-not-at-random implicit feedback", RecSys
        2018, with the mildest of its powers.
        """
        users = np.where(self.items == UNKNOWN, 0, self.vocabulary.counts[self.items])
        found: Floats = 1 / np.sqrt(users + 1.0)
        return found

    def columns(self, schema: Schema) -> dict[str, Any]:
        import pyarrow as pa

        names = [*self.vocabulary.items, None]  # an unknown item is the last
        held: list[list[str | None]] = [[] for _ in range(len(self))]
        for place, item in zip(self.of.tolist(), self.items.tolist(), strict=True):
            held[place].append(names[item])
        best = [[names[item] for item in row if item != UNKNOWN] for row in self.top.tolist()]
        kind = pa.list_(pa.string())
        return {"held_out": pa.array(held, kind), "recommended": pa.array(best, kind), "ndcg": self.primary_of_rows()}

    def primary_of_rows(self) -> Floats:
        """Return (n,) the primary score of each user."""
        return self.statistics(self.scores[0]).statistics[:, 0]


def rank(
    scorer: Scorer, examples: Histories, vocabulary: Vocabulary, scores: tuple[Score, ...], top: int = REACH
) -> Rankings:
    """Return what a scorer makes of the examples: every item that is not given is ranked, ties in a fixed order."""
    of, items = examples.targets()
    kind = torch.from_numpy(vocabulary.shown)
    tie = torch.from_numpy(np.random.default_rng(0).permutation(len(vocabulary)))
    ranks, own_ranks = torch.full_like(items, -1), torch.full_like(items, -1)
    count = min(top, len(vocabulary))
    best, shares = torch.zeros(len(examples), count, dtype=torch.int64), torch.zeros(len(examples), count)
    losses = torch.zeros(len(examples))
    counts = torch.bincount(of, minlength=len(examples))
    starts = counts.cumsum(0) - counts
    for chosen in by_length(examples.lengths, max(1, _RANKED // (8 * len(vocabulary)))):
        part = examples.take(chosen)
        found = scorer(part).clone()  # what a model made in inference mode cannot be written to
        for row, given in enumerate(part.given()):
            found[row, given] = -torch.inf
        found_top = found.topk(count, dim=1)
        logs = found.log_softmax(dim=1)
        best[chosen] = found_top.indices.where(found_top.values > -torch.inf, UNKNOWN)
        shares[chosen] = logs.gather(1, found_top.indices).exp()
        rows, wanted = part.targets()
        own = token_positions(starts[chosen], counts[chosen])
        known = wanted != UNKNOWN
        rows, wanted, own = rows[known], wanted[known], own[known]
        losses.index_add_(0, chosen[rows], -logs[rows, wanted])
        mine, score = found[rows], found[rows, wanted][:, None]
        above = (mine > score) | ((mine == score) & (tie < tie[wanted][:, None]))
        ranks[own] = above.sum(dim=1)
        own_ranks[own] = (above & (kind == kind[wanted][:, None])).sum(dim=1)
    return Rankings(
        scores, examples.rows.numpy(), float(losses.sum() / max(1, len(items))), vocabulary, of.numpy(), items.numpy(),
        ranks.numpy(), own_ranks.numpy(), best.numpy(), shares.numpy(),
    )  # fmt: skip
