"""Image classification: one linear layer on the trunk's embedding."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from graftline.dataset import Schema
from graftline.params import Params
from graftline.training.augment import Augmentation, augment
from graftline.training.randomness import generator
from graftline.trunks.conv import ConvTrunk


class ImageClassificationParams(Params):
    """Parameters of the head `image_classification`."""

    name: Literal["image_classification"] = "image_classification"
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""
    augmentation: Augmentation = Augmentation()
    """How training images are warped."""


class ImageClassifier(nn.Module):
    """A trunk and a linear layer: (n, height, width) pixels to (n, classes) logits."""

    def __init__(self, trunk: ConvTrunk, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.output = nn.Linear(trunk.params.width, classes)
        # Zero: all classes start equal, and the trunk's first gradients do not follow a random direction.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.trunk(pixels))
        return logits

    def loss(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        params: ImageClassificationParams,
        seed: int,
        step: int,
    ) -> torch.Tensor:
        """Return the cross entropy, a scalar, of a batch warped as (seed, step) draws it."""
        warped = augment(pixels, params.augmentation, generator(seed, step, "augment"))
        return nn.functional.cross_entropy(self(warped), labels, label_smoothing=params.label_smoothing)


def config(model: ImageClassifier, schema: Schema) -> dict[str, Any]:
    """Return what `build` needs to make this model again, and what a reader needs to use it."""
    return {
        "head": "image_classification",
        "classes": list(schema.classes),
        "label": schema.label,
        "image": schema.image.name,
        "image_shape": list(schema.image.shape),
        "pixel_maximum": schema.image.maximum,
        "trunk": model.trunk.config(),
    }


def build(values: dict[str, Any]) -> ImageClassifier:
    """Return an untrained model of the shape that a config says."""
    return ImageClassifier(ConvTrunk.from_config(values["trunk"]), len(values["classes"]))
