"""From parameters to the objective on vision trunks that they name."""

from __future__ import annotations

from graftline.trunks.contrastive import Contrastive
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.vision.dense_contrastive import DenseContrastive
from graftline.trunks.vision.masked_image import MaskedImage
from graftline.trunks.vision.oriented_gradients import OrientedGradients
from graftline.trunks.vision.parameters import DenseContrastiveParams, OrientedGradientsParams, VisionObjectiveParams
from graftline.trunks.vision.trunk import VisionTrunk


def build_objective(trunk: VisionTrunk, params: VisionObjectiveParams, dtype: str) -> ImageObjective:
    """Return the objective that `params` names, around `trunk`; `dtype` is `float32` or `bfloat16`."""
    if isinstance(params, ContrastiveParams):
        return Contrastive(trunk, params, dtype)
    if isinstance(params, DenseContrastiveParams):
        return DenseContrastive(trunk, params, dtype)
    if isinstance(params, OrientedGradientsParams):
        return OrientedGradients(trunk, params, dtype)
    return MaskedImage(trunk, params, dtype)
