"""Models that are known to look at one thing, so that explanations can be right or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from markupsafe import Markup
from torch import nn

from graftline.problems.explained import Attention, Explained, Floats, Line, Places, Sets
from graftline.problems.explained_images import ExplainedImages

PATCH = (slice(8, 12), slice(4, 8))
"""Rows and columns of the pixels that decide."""


@dataclass(frozen=True, eq=False)
class Shares(Explained):
    """Answers whose probability is the sum of what is shown, so that every measure can be computed by hand."""

    part: ClassVar[str] = "share"
    hidden: str = "nothing"

    def log_probabilities(self, places: Places, kept: Sets) -> Floats:
        with np.errstate(divide="ignore"):
            found: Floats = np.log((self.model[places] * kept).sum(axis=1))
        return found

    def windows(self, place: int) -> Sets:
        return np.eye(int(self.parts[place]), self.most, dtype=bool)

    def lines(self) -> Iterator[Line]:
        raise NotImplementedError

    def attention(self) -> Iterator[Attention] | str:
        first = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
        second = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
        readers = torch.tensor([[1.0, 0.0, 0.0]])
        return iter([Attention(np.array([0]), [first, second], readers, lambda found: found.double().numpy())])

    def vectors(self) -> Any:
        return self.model

    def told(self, place: int, found: Floats, count: int) -> str:
        return ""

    def values(self, place: int, found: Floats) -> list[float]:
        return []

    def marked(self, place: int, found: Floats) -> Markup:
        return Markup("")

    def shown(self, place: int) -> Markup:
        return Markup("")


class OfPatch(nn.Module):
    """(n, 1, 28, 28) pixels to (n, 2) logits: how bright the patch is, against a half."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(28 * 28, 2)
        weight = torch.zeros(2, 28, 28)
        weight[1][PATCH] = 1.0
        with torch.no_grad():
            self.layer.weight.copy_(weight.flatten(1))
            self.layer.bias.copy_(torch.tensor([0.0, -8.0]))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(pixels.flatten(1))
        return outputs


def pictures(count: int) -> ExplainedImages:
    """Return pictures of noise whose patch is bright, and the model's answer that it is."""
    pixels = np.random.default_rng(0).random((count, 1, 28, 28)).astype(np.float32)
    pixels[:, 0][(slice(None), *PATCH)] = 1.0
    return ExplainedImages.of(OfPatch(), pixels, torch.ones(count, dtype=torch.int64), ["bright"] * count)
