"""Autoencoder: squeeze an image through a narrow embedding and paint it again (Hinton and Salakhutdinov, 2006)."""

from __future__ import annotations

from graftline.trunks.conv.parameters import AutoencoderParams
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import ConvTrunk


def build(trunk: ConvTrunk, params: AutoencoderParams) -> Reconstruction:
    """Return the objective around `trunk`."""
    return Reconstruction(trunk, params.augmentation)
