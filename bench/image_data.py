"""What the measurement of image training works on: the shipped digits as JPEG files in colour, and the models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from graftline.environment import ROOT
from graftline.trunks.vision.parameters import ResNetParams, VisionParams, VitParams
from graftline.values.image import ImageColumn

RAW = ROOT / "data/mnist/raw/images.parquet"
SIDE = 64
COUNT = 2000
CLASSES = 10
IMAGE = ImageColumn("image", (SIDE, SIDE), 255, 3)
SHAPES: dict[str, VisionParams] = {
    "resnet 4x2": ResNetParams(stem=32, depths=(2, 2, 2, 2), channels=(32, 64, 128, 256)),
    "vit 4x128": VitParams(patch=8, layers=4, width=128, heads=4, hidden=512),
}


def prepare(folder: Path) -> None:
    """Write the pictures into `folder` as NUMBER.jpg, and once decoded as pixels.npy with labels.npy."""
    table = pq.read_table(RAW).slice(0, COUNT)
    grey = np.stack(table["image"].to_numpy()).reshape(-1, 28, 28).astype(np.uint8)
    colours = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 3))
    pixels = np.empty((COUNT, SIDE, SIDE, 3), np.uint8)
    for number, (digit, (paper, ink)) in enumerate(zip(grey, colours, strict=True)):
        share = digit[..., None] / 255
        painted = Image.fromarray((paper * (1 - share) + ink * share).astype(np.uint8))
        painted.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        with Image.open(folder / f"{number}.jpg") as saved:
            pixels[number] = np.asarray(saved)
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "labels.npy", table["label"].to_numpy())
