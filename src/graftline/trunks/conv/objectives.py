"""From parameters to the objective on images that they name."""

from __future__ import annotations

from graftline.trunks.conv import autoencoder, contrastive, masked_autoencoder
from graftline.trunks.conv.objective import ImageObjective
from graftline.trunks.conv.parameters import AutoencoderParams, ContrastiveParams, ImageObjectiveParams
from graftline.trunks.conv.trunk import ConvTrunk

WEIGHTS = "objective.safetensors"
"""In an image trunk's folder: the objective's own layers, so that in fine-tuning it goes on where pretraining ended."""


def build_objective(trunk: ConvTrunk, params: ImageObjectiveParams, dtype: str = "float32") -> ImageObjective:
    """Return the objective on images that `params` names, around `trunk`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, AutoencoderParams):
        return autoencoder.build(trunk, params, dtype)
    if isinstance(params, ContrastiveParams):
        return contrastive.build(trunk, params, dtype)
    return masked_autoencoder.build(trunk, params, dtype)
