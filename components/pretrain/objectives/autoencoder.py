"""Autoencoder: squeeze an image through a narrow embedding and paint it again (Hinton and Salakhutdinov, 2006)."""

from __future__ import annotations

from typing import Literal

from graftline.components.pretrain.objectives.reconstruction import Reconstruction
from graftline.params import Params
from graftline.training.augment import Augmentation
from graftline.trunks.conv import ConvTrunk


class AutoencoderParams(Params):
    """Parameters of the objective `autoencoder`."""

    name: Literal["autoencoder"] = "autoencoder"
    augmentation: Augmentation = Augmentation()
    """How the input is warped; the target is not."""


def build(trunk: ConvTrunk, params: AutoencoderParams) -> Reconstruction:
    """Return the objective around `trunk`."""
    return Reconstruction(trunk, params.augmentation)
