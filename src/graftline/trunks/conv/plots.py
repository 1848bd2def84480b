"""Pictures of a pretraining run."""

from __future__ import annotations

from pathlib import Path

from graftline.plots import figure, save, show_image
from graftline.trunks.conv.reconstruction import Pictures


def reconstructions(pictures: Pictures, path: Path) -> None:
    """Draw three rows of images: what the trunk saw, what was painted from it, and the original."""
    count = len(pictures.shown)
    plot = figure(0.7 * count, 2.6)
    grid = plot.subplots(3, count, squeeze=False)
    for row, (name, images) in enumerate(zip(("seen", "painted", "original"), pictures, strict=True)):
        for axes, image in zip(grid[row], images, strict=True):
            show_image(axes, image.numpy())
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
        grid[row][0].set_ylabel(name)
    save(plot, path)
