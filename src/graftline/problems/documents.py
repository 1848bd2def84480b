"""Documents as tokens in memory, and batches of them with little padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Self

import numpy as np
import torch

from graftline.digests import sha256_bytes
from graftline.learning.randomness import generator, permutation
from graftline.problems.problem import Examples

IGNORED = -100
"""The label of a token that is not learned: torch's cross entropy skips it."""
BATCHES_BY_LENGTH = 16
"""Batches that are sorted by length together."""
ROUND = 8
"""Rows are padded to a multiple of so many tokens, and texts that are computed apart go by so many: oneDNN compiles a
bfloat16 kernel for each shape that it meets, and keeps it."""
_APART = 150
"""Tokens in whose time one more group is begun."""
ANSWER_TOKENS = 16_384
"""Tokens at once where nothing is learned, padding included."""


@dataclass(frozen=True)
class Documents(Examples):
    """Documents as tokens, end to end."""

    ids: torch.Tensor
    """(tokens,) int32 token ids of all documents."""
    offsets: torch.Tensor
    """(n + 1,) int64; document i is `ids[offsets[i]:offsets[i + 1]]`."""
    rows: torch.Tensor
    labels: torch.Tensor | None = None
    """(n,) int64 class indices; None of documents without labels."""
    weights: torch.Tensor | None = None
    cut: torch.Tensor | None = None
    """(n,) int32: tokens of each document that the model does not see; None where they are read in parts."""

    @property
    def classes(self) -> torch.Tensor | None:
        return self.labels

    @property
    def lengths(self) -> torch.Tensor:
        """(n,) int64 tokens of each document."""
        return self.offsets.diff()

    @property
    def seen(self) -> torch.Tensor:
        """(n,) int64 tokens of each that the model sees, in all."""
        return self.lengths

    @property
    def longest(self) -> int:
        """Tokens that the model sees at once, at most."""
        return int(self.lengths.max())

    def take(self, chosen: torch.Tensor) -> Self:
        arrays = self.arrays()
        taken = {}
        for name, of in self.runs().items():
            offsets = torch.from_numpy(arrays.pop(name))
            lengths = offsets.diff()[chosen]
            places = token_positions(offsets[chosen], lengths).numpy()
            taken[name] = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).numpy()
            taken |= {run: arrays.pop(run)[places] for run in of if run in arrays}
        return self.from_arrays({**taken, **{name: array[chosen.numpy()] for name, array in arrays.items()}})

    @classmethod
    def token_arrays(cls) -> tuple[str, ...]:
        """Return the names of the arrays with a value a token."""
        return ("ids",)

    @classmethod
    def runs(cls) -> dict[str, tuple[str, ...]]:
        """Return the names of the arrays that hold a run of values a document, by that of the array of its places."""
        return {"offsets": cls.token_arrays()}

    def draw(self, seed: int, step: int, size: int) -> torch.Tensor:
        """Return the (size,) positions of a step's batch: documents of similar length, all of them in turn.

        An epoch's permutation is cut into windows of some batches, each sorted by length and cut into batches,
        which come in random order. What is left over in an epoch (less than a batch) is skipped; it is other
        documents each time.
        """
        return _bucketed(seed, step, size, self.seen)

    def alike_in_size(self) -> list[torch.Tensor]:
        """As the base says: cut where, the documents in order of length, all groups together take the least time."""
        order = self.lengths.argsort(stable=True)
        blocks = -(-len(order) // ROUND)
        ends = len(order) - ROUND * np.arange(blocks)[::-1]
        widths = -(-self.lengths[order].numpy()[ends - 1] // ROUND) * ROUND
        least, first = np.zeros(blocks + 1), np.zeros(blocks + 1, np.int64)
        for stop in range(1, blocks + 1):  # of a group that is the blocks from `start` to `stop`
            sizes = np.arange(stop, 0, -1) * ROUND
            times = least[:stop] + _APART + sizes * widths[stop - 1]
            first[stop] = times.argmin()
            least[stop] = times[first[stop]]
        cuts, stop = [], int(first[blocks])
        while stop:
            cuts.append(int(ends[stop - 1]))
            stop = int(first[stop])
        return list(order.tensor_split(cuts[::-1]))

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in vars(self).items() if isinstance(tensor, torch.Tensor)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def digest(self) -> str:
        seen = {name: array for name, array in self.arrays().items() if name != "cut"}
        return sha256_bytes(b"".join(array.tobytes() for _, array in sorted(seen.items())))

    def inputs(self) -> list[bytes]:
        ids, ends = self.ids.numpy(), self.offsets.tolist()
        return [sha256(ids[start:end].tobytes()).digest() for start, end in pairwise(ends)]


def token_positions(starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return (total,) positions: each document's from its start on, one document after the other."""
    before = lengths.cumsum(0) - lengths
    shift = torch.repeat_interleave(starts - before, lengths)
    return torch.arange(int(lengths.sum())) + shift


def _bucketed(seed: int, step: int, size: int, lengths: torch.Tensor) -> torch.Tensor:
    batches = len(lengths) // size
    epoch, place = divmod(step, batches)
    window, inside = divmod(place, BATCHES_BY_LENGTH)
    order = permutation(seed, epoch, len(lengths))[: batches * size].split(BATCHES_BY_LENGTH * size)[window]
    order = order[lengths[order].argsort(stable=True)]
    first = epoch * (batches // BATCHES_BY_LENGTH + 1) + window
    shuffled = torch.randperm(len(order) // size, generator=generator(seed, first, "bucket"))
    chosen: torch.Tensor = order.split(size)[int(shuffled[inside])]
    return chosen


def bounds(values: Sequence[Sequence[int] | bytes]) -> np.ndarray:
    """Return the (n + 1,) int64 places at which n lists begin and end once they stand end to end."""
    return np.cumsum([0, *map(len, values)], dtype=np.int64)


def documents_of(encoded: list[list[int]], rows: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the arrays of documents from n lists of token ids."""
    offsets = bounds(encoded)
    flat = np.fromiter((token for ids in encoded for token in ids), dtype=np.int32, count=int(offsets[-1]))
    known = {} if labels is None else {"labels": labels}
    return {"ids": flat, "offsets": offsets, "rows": np.array(rows), **known}


def padded(values: torch.Tensor, lengths: torch.Tensor, fill: int, width: int | None = None) -> torch.Tensor:
    """Return (n, width) int64 of n documents' values that lie end to end; `fill` stands behind the shorter ones.

    `width` is the longest document's by default.
    """
    table = torch.full((len(lengths), width or int(lengths.max())), fill, dtype=torch.int64)
    table[torch.arange(table.shape[1]) < lengths[:, None]] = values.long()
    return table


def by_length(lengths: torch.Tensor, limit: int = ANSWER_TOKENS) -> Iterator[torch.Tensor]:
    """Yield all positions in batches of at most `limit` tokens with padding, the shortest documents first.

    An empty one counts as one token: it has a row in a batch, as histories have of which nothing is known.
    """
    order = lengths.argsort(stable=True)
    ordered = lengths[order].clamp(min=1).tolist()
    start = 0
    for end, length in enumerate(ordered):
        if (end - start + 1) * length > limit and end > start:
            yield order[start:end]
            start = end
    yield order[start:]
