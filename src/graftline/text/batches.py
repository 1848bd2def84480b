"""Batches of whole documents: about so many tokens each, no padding, an order that is a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch

from graftline.text.attention import Runs

WINDOW = 16
"""Batches that are filled from one sorted window: wide enough for equal lengths, narrow enough to stay random."""


@dataclass(frozen=True)
class Packed:
    """Documents end to end in one row of tokens, sorted by length."""

    ids: torch.Tensor
    """(1, tokens) int64."""
    positions: torch.Tensor
    """(1, tokens) int64: each token's place in its document, from 0."""
    runs: Runs
    """The stretches of equally long documents, as packed attention takes them."""
    documents: torch.Tensor
    """(documents,) int64: which documents, in the order of the row."""


def pack(ids: np.ndarray, lengths: np.ndarray, documents: np.ndarray) -> Packed:
    """Return a packed row.

    Args:
        ids: (tokens,) token ids of the documents, end to end, shortest document first.
        lengths: (documents,) tokens of each, ascending and none empty.
        documents: (documents,) their numbers.
    """
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(len(ids)) - np.repeat(starts, lengths)
    found, counts = np.unique(lengths, return_counts=True)
    return Packed(
        torch.from_numpy(ids.astype(np.int64))[None],
        torch.from_numpy(positions)[None],
        Runs(tuple((int(count), int(length)) for length, count in zip(found, counts, strict=True))),
        torch.from_numpy(documents.astype(np.int64)),
    )


class Batches:
    """All epochs of a training run over documents of known lengths.

    Each epoch shuffles the documents, cuts them into windows of some batches, sorts each window by length, cuts it
    into batches and shuffles those. So documents of about equal length meet, which costs attention nothing for
    padding, but which ones meet differs from epoch to epoch.
    """

    def __init__(self, lengths: np.ndarray, tokens: int, seed: int) -> None:
        """Plan batches of about `tokens` tokens from documents of (n,) `lengths`."""
        self._lengths, self._seed = lengths.astype(np.int64), seed
        self._total = int(self._lengths.sum())
        self.per_epoch = max(1, round(self._total / tokens))
        """Steps in an epoch."""
        self._epoch = lru_cache(maxsize=2)(self._plan)

    def documents(self, step: int) -> np.ndarray:
        """Return the (k,) numbers of the documents of step `step` (from 0), shortest first; never empty."""
        epoch, place = divmod(step, self.per_epoch)
        return self._epoch(epoch)[place]

    def tokens(self, step: int) -> int:
        """Return how many tokens the step's documents have."""
        return int(self._lengths[self.documents(step)].sum())

    def _plan(self, epoch: int) -> list[np.ndarray]:
        draw = np.random.default_rng([self._seed, epoch])
        order = draw.permutation(len(self._lengths))
        windows = max(1, round(self.per_epoch / WINDOW))
        window = self._part(order, windows)
        order = order[np.lexsort((order, self._lengths[order], window))]
        batch = self._part(order, self.per_epoch)
        cuts = np.searchsorted(batch, np.arange(self.per_epoch + 1))
        batches = [order[low:high] for low, high in pairwise(cuts)]
        # A document longer than a batch leaves the parts that it spans empty but one.
        batches = [b[np.argsort(self._lengths[b], kind="stable")] if len(b) else order[:1] for b in batches]
        return [batches[place] for place in draw.permutation(self.per_epoch)]

    def _part(self, order: np.ndarray, parts: int) -> np.ndarray:
        """Return (n,) which of so many parts, equal in tokens, each document of `order` falls into; ascending."""
        ends = np.cumsum(self._lengths[order])
        return (ends - 1) * parts // self._total
