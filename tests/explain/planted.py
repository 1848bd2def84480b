"""Models that are known to look at one thing, so that explanations can be right or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from markupsafe import Markup
from torch import nn

from graftline.problems.audio import ClipExamples
from graftline.problems.explained import Attention, Explained, Floats, Line, Places, Sets
from graftline.problems.explained_clips import ExplainedClips
from graftline.problems.explained_images import ExplainedImages
from graftline.values.clips import Clips

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


RATE, PIECE = 8000, 3
"""Samples a second, and the piece of 50 ms that decides."""


class OfPiece(nn.Module):
    """Clips to (n, 2) logits: how loud one piece is, against a little; as much of `AudioModel` as is asked for."""

    rate, at_once = RATE, 1 << 20

    def inputs(self, clips: ClipExamples) -> dict[str, torch.Tensor]:
        waves = nn.utils.rnn.pad_sequence([torch.from_numpy(wave / 2**15) for wave in clips.waves()], True).float()
        return {"input_values": waves, "attention_mask": torch.ones(waves.shape)}

    def answering(self, *, fast: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def network(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        loud = input_values[:, PIECE * 400 : (PIECE + 1) * 400].square().sum(dim=1)
        return SimpleNamespace(logits=torch.stack([torch.full_like(loud, 0.5), loud], dim=1))


def clips(count: int) -> ExplainedClips:
    """Return clips of noise of different lengths, one piece of which is loud, and the model's answer that it is."""
    draw = np.random.default_rng(0)
    waves = [draw.normal(0, 300, size=2000 + 130 * number).astype(np.int16) for number in range(count)]
    for wave in waves:
        wave[PIECE * 400 : (PIECE + 1) * 400] *= 15
    examples = ClipExamples.of(Clips.of(waves, RATE), np.arange(count))
    return ExplainedClips.of(OfPiece(), examples, torch.ones(count, dtype=torch.int64), ["loud"] * count)  # type: ignore[arg-type]
