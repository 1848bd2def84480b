"""What every trunk of images is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

MODEL_WEIGHTS = "model.safetensors"
"""Where every family keeps a trunk with a layer on top."""


class ImageTrunk(nn.Module, ABC):
    """(n, channels, height, width) float32 pixels from 0 to 1 to (n, width) embeddings."""

    narrow_on_cpu: ClassVar[bool]
    """Whether the arithmetic `auto` narrows on a CPU that can."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Return the length of an embedding."""

    def attentions(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], int, int] | None:
        """Return each layer's (n, heads, tokens, tokens) attention; rows and columns of patches, which stand last.

        None of a trunk that has no attention over the whole picture, which is all that are no transformers.
        """
        return None

    @abstractmethod
    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the (n, features, rows, columns) maps of what it sees where, the finest first, each of another size.

        A trunk that keeps one size throughout, such as a vit, gives one.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what its family needs to make a trunk of its shape: for trunk.json and head.json."""

    @abstractmethod
    def save_alone(self, folder: Path) -> None:
        """Write the trunk without a layer on top into a model's `folder`; what else the model has lies beside it."""

    @property
    @abstractmethod
    def how_to_map(self) -> str:
        """Say in Markdown how others get from `save_alone`'s files and an image to what `maps` returns."""

    @abstractmethod
    def save_with(self, output: nn.Linear, folder: Path, settings: dict[str, Any]) -> None:
        """Write the trunk with a layer on top into `folder`; `settings` tell other libraries what its outputs are."""
