"""From parameters to the objective on images that they name."""

from __future__ import annotations

from graftline.trunks.contrastive import Contrastive
from graftline.trunks.conv.parameters import AutoencoderParams, ImageObjectiveParams
from graftline.trunks.conv.reconstruction import MaskedReconstruction, Reconstruction
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.image_parameters import ContrastiveParams


def build_objective(trunk: ConvTrunk, params: ImageObjectiveParams, dtype: str = "float32") -> ImageObjective:
    """Return the objective on images that `params` names, around `trunk`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, ContrastiveParams):
        return Contrastive(trunk, params, dtype)
    return (Reconstruction if isinstance(params, AutoencoderParams) else MaskedReconstruction)(trunk, params, dtype)
