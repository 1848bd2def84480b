"""The parameters of convolutional trunks and of what they learn from; without torch, like all parameter models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from graftline.learning.parameters import Augmentation
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.parameters import ObjectiveParams, TrunkParams

Channels = Annotated[int, Field(ge=1, le=4096)]


class ConvParams(TrunkParams):
    """The shape of a convolutional trunk."""

    family: ClassVar[str] = "conv"

    name: Literal["conv"] = "conv"
    channels: tuple[Channels, Channels, Channels] = (16, 32, 64)
    """Channels after each of the three convolutions, 1 to 4,096; each halves the height and width."""
    width: int = Field(default=128, ge=8, le=4096)
    """Length of the embedding."""


class _OnImages(ObjectiveParams):
    family: ClassVar[str] = "conv"
    loss_unit: ClassVar[str] = "squared error a pixel"
    needs: ClassVar[str] = "a conv trunk"


class AutoencoderParams(_OnImages):
    """Parameters of the objective `autoencoder`."""

    name: Literal["autoencoder"] = "autoencoder"
    augmentation: Augmentation = Augmentation()
    """How the input is warped; the target is not."""


class MaskedAutoencoderParams(_OnImages):
    """Parameters of the objective `masked_autoencoder`."""

    name: Literal["masked_autoencoder"] = "masked_autoencoder"
    mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of patches that are hidden, above 0 and below 1."""
    patch: int = Field(default=4, ge=1, le=64)
    """Height and width of a patch, in pixels."""
    augmentation: Augmentation = Augmentation()
    """How the input is warped; the target is not."""


ImageObjectiveParams = AutoencoderParams | MaskedAutoencoderParams | ContrastiveParams
