"""Pairs of texts in memory: as tokens, and as they were, for a text that is written is compared with the one wanted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from graftline.problems.documents import Documents
from graftline.trunks.text.encoder_decoder import ToWrite


@dataclass(frozen=True, kw_only=True)
class Pairs(Documents):
    """A text to read, whose tokens are `ids`, and one to write."""

    target: torch.Tensor
    """(target tokens,) int32 token ids of all texts to write, each with its end mark if the whole text fits."""
    target_offsets: torch.Tensor
    """(n + 1,) int64."""
    text: torch.Tensor
    """(bytes,) uint8: of each pair the text to read, a NUL, and the text to write, in UTF-8 and whole."""
    text_offsets: torch.Tensor
    """(n + 1,) int64."""

    @classmethod
    def runs(cls) -> dict[str, tuple[str, ...]]:
        return {**super().runs(), "target_offsets": ("target",), "text_offsets": ("text",)}

    @property
    def seen(self) -> torch.Tensor:
        return self.lengths + self.target_offsets.diff()

    @property
    def longest(self) -> int:
        return int(torch.maximum(self.lengths, self.target_offsets.diff()).max())

    def to_write(self) -> ToWrite:
        """Return the pairs as a model learns them."""
        return ToWrite(self.ids.split(self.lengths.tolist()), self.target.split(self.target_offsets.diff().tolist()))

    def texts(self) -> tuple[list[str], list[str]]:
        """Return the n texts to read and the n to write, whole."""
        data, ends = self.text.numpy().tobytes(), self.text_offsets.tolist()
        whole = (data[start:end].decode() for start, end in pairwise(ends))
        found = [text.split("\0", 1) for text in whole]
        return [read for read, _ in found], [write for _, write in found]
