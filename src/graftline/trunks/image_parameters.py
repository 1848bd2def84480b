"""The parameters of objectives that train any trunk of images; without torch, like all parameter models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from graftline.learning.parameters import Augmentation
from graftline.trunks.parameters import ObjectiveParams


class ContrastiveParams(ObjectiveParams):
    """Parameters of the objective `contrastive`."""

    family: ClassVar[str] = "conv"
    also: ClassVar[tuple[str, ...]] = ("vision",)
    loss_unit: ClassVar[str] = "nats a view"
    needs: ClassVar[str] = "a trunk of images"

    name: Literal["contrastive"] = "contrastive"
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Divides the similarities: the lower, the more the nearest wrong images count."""
    projection: int = Field(default=128, ge=8, le=4096)
    """Length of the vectors that are compared."""
    group: str | None = Field(default=None, min_length=1, max_length=200)
    """A column of the contract: images with one value there, such as those of a patient or a product, show one thing
    and are views of it, too. Never one that tells the label. Null for views of one image only."""
    augmentation: Augmentation = Augmentation(
        shift=0, crop=0.3, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=20, grey=0.1, edge="repeat"
    )
    """How the two views of an image are made of it: what they have in common is learned, what they differ in is not."""
