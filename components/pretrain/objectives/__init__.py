"""How `pretrain` learns without labels: one file an objective, with its parameters.

To add one: a file with a Params class (its `name` a literal), a `build` function, and a line in each of the two
places below.
"""

from __future__ import annotations

from graftline.components.pretrain.objectives import autoencoder, masked_autoencoder
from graftline.components.pretrain.objectives.autoencoder import AutoencoderParams
from graftline.components.pretrain.objectives.masked_autoencoder import MaskedAutoencoderParams
from graftline.components.pretrain.objectives.reconstruction import Reconstruction
from graftline.trunks.conv import ConvTrunk

WEIGHTS = "objective.safetensors"
"""In a trunk's folder: the decoder, so that a joint objective in fine-tuning goes on where pretraining ended."""

ObjectiveParams = AutoencoderParams | MaskedAutoencoderParams


def build_objective(trunk: ConvTrunk, params: ObjectiveParams) -> Reconstruction:
    """Return the objective that `params` names, around `trunk`."""
    if isinstance(params, AutoencoderParams):
        return autoencoder.build(trunk, params)
    return masked_autoencoder.build(trunk, params)
