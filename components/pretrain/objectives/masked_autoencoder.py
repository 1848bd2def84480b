"""Masked autoencoder: paint an image of which most patches are hidden (He et al., 2021, arXiv:2111.06377)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from graftline.components.pretrain.objectives.reconstruction import Reconstruction
from graftline.params import Params
from graftline.training.augment import Augmentation
from graftline.trunks.conv import ConvTrunk


class MaskedAutoencoderParams(Params):
    """Parameters of the objective `masked_autoencoder`."""

    name: Literal["masked_autoencoder"] = "masked_autoencoder"
    mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of patches that are hidden, above 0 and below 1."""
    patch: int = Field(default=4, ge=1, le=64)
    """Height and width of a patch, in pixels."""
    augmentation: Augmentation = Augmentation()
    """How the input is warped; the target is not."""


class MaskedAutoencoder(Reconstruction):
    """Hides a random share of square patches from the trunk."""

    def __init__(self, trunk: ConvTrunk, params: MaskedAutoencoderParams) -> None:
        super().__init__(trunk, params.augmentation)
        self._ratio, self._patch = params.mask_ratio, params.patch

    def hide(self, pixels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        count, height, width = pixels.shape
        rows, columns = -(-height // self._patch), -(-width // self._patch)
        seen = (torch.rand(count, rows, columns, generator=draw) >= self._ratio).float()
        seen = seen.repeat_interleave(self._patch, 1).repeat_interleave(self._patch, 2)
        return pixels * seen[:, :height, :width]


def build(trunk: ConvTrunk, params: MaskedAutoencoderParams) -> MaskedAutoencoder:
    """Return the objective around `trunk`."""
    return MaskedAutoencoder(trunk, params)
