"""A small convolutional trunk: three strided convolutions and a linear embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from graftline.durable import write_new
from graftline.learning.batch_norm import BatchNorm1d, BatchNorm2d
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.image_trunk import MODEL_WEIGHTS, ImageTrunk

KIND = "conv"


class ConvTrunk(ImageTrunk):
    """Turns (n, channels, height, width) pixels into (n, width) embeddings."""

    narrow_on_cpu: ClassVar[bool] = False

    def __init__(self, params: ConvParams, shape: tuple[int, int], in_channels: int = 1) -> None:
        """Build a trunk for images of (height, width) `shape` in so many channels: 1 for grey, 3 for colour."""
        super().__init__()
        self.params, self.shape, self.in_channels = params, shape, in_channels
        layers: list[nn.Module] = []
        before, size = in_channels, shape
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
        embedded: torch.Tensor = self.embedding(self.convolutions(pixels))
        return embedded

    @property
    def width(self) -> int:
        """Length of the embedding."""
        return self.params.width

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for layer in self.convolutions:
            pixels = layer(pixels)
            if isinstance(layer, nn.GELU):
                found.append(pixels)
        return found

    def save_alone(self, folder: Path) -> None:
        from safetensors.torch import save

        write_new(folder / MODEL_WEIGHTS, save(self.state_dict()))

    @property
    def how_to_map(self) -> str:
        return (
            "`model.safetensors` has three convolutions (`convolutions.0`, `.3`, `.6`; 3 x 3, stride 2, padding 1).\n"
            "Each is followed by its batch normalisation (`.1`, `.4`, `.7`; epsilon 1e-5) and GELU;\n"
            "what comes out of each is a map. Pixels are given as they are, from 0 to 1."
        )

    def save_with(self, output: nn.Linear, folder: Path, settings: dict[str, Any]) -> None:
        """Write trunk and `output` into one file; of other libraries' `settings` nothing is kept."""
        from safetensors.torch import save

        write_new(folder / MODEL_WEIGHTS, save(with_output(self, output).state_dict()))

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build a trunk of this shape."""
        colour = {} if self.in_channels == 1 else {"in_channels": self.in_channels}
        return {**self.params.model_dump(mode="json"), "shape": list(self.shape), **colour}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ConvTrunk:
        """Return an untrained trunk of the shape that `config` says."""
        shape = dict(config)
        (height, width), in_channels = shape.pop("shape"), shape.pop("in_channels", 1)
        return cls(ConvParams(**shape), (height, width), in_channels)


def with_output(trunk: ConvTrunk, output: nn.Linear) -> nn.ModuleDict:
    """Return both under the names that a model's file has."""
    return nn.ModuleDict({"trunk": trunk, "output": output})
