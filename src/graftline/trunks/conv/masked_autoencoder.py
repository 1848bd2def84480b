"""Masked autoencoder: paint an image of which most patches are hidden (He et al., 2021, arXiv:2111.06377)."""

from __future__ import annotations

import torch

from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.trunks.conv.parameters import MaskedAutoencoderParams
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import ConvTrunk


class MaskedAutoencoder(Reconstruction):
    """Hides a random share of square patches from the trunk."""

    def __init__(self, trunk: ConvTrunk, params: MaskedAutoencoderParams, dtype: str) -> None:
        super().__init__(trunk, params.augmentation, dtype)
        self._ratio, self._patch = params.mask_ratio, params.patch

    def hide(self, pixels: torch.Tensor, draw: torch.Generator, count: int, part: World) -> torch.Tensor:
        height, width = pixels.shape[2:]
        rows, columns = -(-height // self._patch), -(-width // self._patch)
        seen = (torch.rand(count, rows, columns, generator=draw) >= self._ratio).float()
        seen = send(share(seen, part), pixels.device)
        seen = seen.repeat_interleave(self._patch, 1).repeat_interleave(self._patch, 2)
        return pixels * seen[:, None, :height, :width]


def build(trunk: ConvTrunk, params: MaskedAutoencoderParams, dtype: str) -> MaskedAutoencoder:
    """Return the objective around `trunk`."""
    return MaskedAutoencoder(trunk, params, dtype)
