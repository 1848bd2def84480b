"""Parameters that components share about training; without torch, like all parameter models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.tasks.parameters import Params

Precision = Literal["auto", "float32", "bfloat16"]


class Augmentation(Params):
    """How far an image may be moved and warped, drawn evenly for each image and step."""

    shift: float = Field(default=2.0, ge=0, le=14)
    """Largest shift along each axis, in pixels."""
    rotation: float = Field(default=0.0, ge=0, le=45)
    """Largest rotation, in degrees."""
    scale: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest relative change of height and of width."""
    shear: float = Field(default=0.0, ge=0, lt=0.5)
    """Largest shear, as the tangent of its angle."""
