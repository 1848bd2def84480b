"""Pictures of a pretraining run."""

from __future__ import annotations

from pathlib import Path

import torch

from graftline.plots import figure, save, show_image


def image_rows(rows: dict[str, torch.Tensor], path: Path) -> None:
    """Draw rows of (n, channels, height, width) images, each with its name beside it."""
    count = len(next(iter(rows.values())))
    plot = figure(0.7 * count, 0.8 * len(rows) + 0.2)
    grid = plot.subplots(len(rows), count, squeeze=False)
    for axes_of_row, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(axes_of_row, images, strict=True):
            show_image(axes, image.numpy())
            axes.grid(False)
        axes_of_row[0].set_ylabel(name)
    save(plot, path)
