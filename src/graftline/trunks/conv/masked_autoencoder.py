"""Masked autoencoder: paint an image of which most patches are hidden (He et al., 2021, arXiv:2111.06377)."""

from __future__ import annotations

import torch

from graftline.learning.distributed import World
from graftline.trunks.conv.parameters import MaskedAutoencoderParams
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.masks import seen_squares


class MaskedAutoencoder(Reconstruction):
    """Hides a random share of square patches from the trunk."""

    def __init__(self, trunk: ConvTrunk, params: MaskedAutoencoderParams, dtype: str) -> None:
        super().__init__(trunk, params.augmentation, dtype)
        self._ratio, self._patch = params.mask_ratio, params.patch

    def hide(self, pixels: torch.Tensor, draw: torch.Generator, count: int, part: World) -> torch.Tensor:
        seen, _ = seen_squares(pixels, self._patch, self._ratio, draw, count, part)
        return pixels * seen


def build(trunk: ConvTrunk, params: MaskedAutoencoderParams, dtype: str) -> MaskedAutoencoder:
    """Return the objective around `trunk`."""
    return MaskedAutoencoder(trunk, params, dtype)
