"""Parameters that components share about training; without torch, like all parameter models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from graftline.tasks.parameters import Params

Precision = Literal["auto", "float32", "bfloat16"]


Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Params):
    """How far an image may be moved, warped and recoloured, drawn evenly for each image and step."""

    shift: float = Field(default=2.0, ge=0, le=14)
    """Largest shift along each axis, in pixels."""
    rotation: float = Field(default=0.0, ge=0, le=45)
    """Largest rotation, in degrees."""
    scale: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest relative change of height and of width."""
    shear: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest shear, as the tangent of its angle."""
    edge: Literal["black", "repeat"] = "black"
    """What enters at the edges: black, or the outermost pixels again."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """Smallest share of the image's area to cut out and enlarge; 1 for the whole image."""
    flip: Share = 0.0
    """Share of images that are mirrored, left to right; 0 where left and right matter, as in writing."""
    brightness: Share = 0.0
    """Largest relative change of brightness."""
    contrast: Share = 0.0
    """Largest relative change of contrast."""
    saturation: Share = 0.0
    """Largest relative change of saturation; of images in colour only, like hue and grey."""
    hue: float = Field(default=0.0, ge=0, le=180)
    """Largest turn of the colours, in degrees."""
    grey: Share = 0.0
    """Share of images that lose their colours."""
