"""A small convolutional trunk for grey images: three strided convolutions and a linear embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from graftline.learning.batch_norm import BatchNorm1d, BatchNorm2d
from graftline.trunks.conv.parameters import ConvParams

KIND = "conv"


class ConvTrunk(nn.Module):
    """Turns (n, height, width) pixels into (n, width) embeddings."""

    def __init__(self, params: ConvParams, shape: tuple[int, int]) -> None:
        super().__init__()
        self.params, self.shape = params, shape
        layers: list[nn.Module] = []
        before, size = 1, shape
        for channels in params.channels:
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), BatchNorm2d(channels), nn.GELU()]
            before, size = channels, ((size[0] + 1) // 2, (size[1] + 1) // 2)
        self.grid = (before, *size)
        """Channels, height and width of the last feature map."""
        self.convolutions = nn.Sequential(*layers)
        self.embedding = nn.Sequential(
            nn.Flatten(), nn.Linear(before * size[0] * size[1], params.width), BatchNorm1d(params.width)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.embedding(self.convolutions(pixels[:, None]))
        return embedded

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build a trunk of this shape."""
        return {**self.params.model_dump(mode="json"), "shape": list(self.shape)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ConvTrunk:
        """Return an untrained trunk of the shape that `config` says."""
        height, width = config["shape"]
        return cls(ConvParams(**{key: value for key, value in config.items() if key != "shape"}), (height, width))
