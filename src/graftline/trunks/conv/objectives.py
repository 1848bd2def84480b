"""From parameters to the objective on images that they name."""

from __future__ import annotations

from graftline.trunks.conv import autoencoder, masked_autoencoder
from graftline.trunks.conv.parameters import AutoencoderParams, ImageObjectiveParams
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import ConvTrunk

WEIGHTS = "objective.safetensors"
"""In an image trunk's folder: the decoder, so that a joint objective in fine-tuning goes on where pretraining ended."""


def build_objective(trunk: ConvTrunk, params: ImageObjectiveParams) -> Reconstruction:
    """Return the objective on images that `params` names, around `trunk`."""
    if isinstance(params, AutoencoderParams):
        return autoencoder.build(trunk, params)
    return masked_autoencoder.build(trunk, params)
