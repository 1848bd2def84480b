"""Pictures of a pretraining run."""

from __future__ import annotations

from pathlib import Path

import torch

from graftline.plots import place_image, save, sheet

_NAME, _SIDE, _GAP = 0.25, 0.75, 0.05
"""Of a row's name, of an image with what is around it, and between images: inches."""


def image_rows(rows: dict[str, torch.Tensor], path: Path) -> None:
    """Draw rows of (n, channels, height, width) images, each with its name beside it."""
    count = len(next(iter(rows.values())))
    plot, axes = sheet(_NAME + _SIDE * count, _SIDE * len(rows))
    for row, (name, images) in enumerate(rows.items()):
        axes.text(0.5 * _NAME, _SIDE * (row + 0.5), name, rotation=90, ha="center", va="center")
        for column, image in enumerate(images):
            box = _NAME + _SIDE * column, _SIDE * row + _GAP, _SIDE - _GAP, _SIDE - 2 * _GAP
            place_image(axes, image.numpy(), box)
    save(plot, path)
