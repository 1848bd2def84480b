"""The baseline on images: transformers' own Trainer, as its example uses it (run_image_classification.py).

https://github.com/huggingface/transformers/tree/main/examples/pytorch/image-classification. Each time that a picture is
used, the example decodes it, cuts a random part of it out, mirrors it or not, scales it and normalises it. It does so
by torchvision, which has no wheel for every machine; Pillow and the library's own processor do the same here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from bench.image_data import CLASSES, COUNT, IMAGE, SHAPES, SIDE
from bench.text_trainer import Counting, Recipe
from graftline.trunks.vision.trunk import new_trunk

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CROP = (0.3, 1.0)
"""Smallest and largest share of the area that is cut out."""
_ASPECT = (3 / 4, 4 / 3)


class Pictures(Dataset[dict[str, Any]]):
    """Pictures as the datasets library hands them out: decoded when they are asked for, or with `pixels` before."""

    def __init__(self, folder: Path, rows: Literal["pictures", "pixels"]) -> None:
        self._folder, self._labels = folder, np.load(folder / "labels.npy")
        self._pixels = np.load(folder / "pixels.npy") if rows == "pixels" else None

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, place: int) -> dict[str, Any]:
        if self._pixels is None:
            with Image.open(self._folder / f"{place}.jpg") as opened:
                picture = opened.convert("RGB")
        else:
            picture = Image.fromarray(self._pixels[place])
        return {"image": picture, "label": int(self._labels[place])}


def classification(folder: Path, shape: str, rows: Literal["pictures", "pixels"]) -> Recipe:
    """Return the example's recipe."""
    from transformers import ViTImageProcessorPil, default_data_collator

    half = [0.5] * 3
    processor = ViTImageProcessorPil(do_resize=False, image_mean=half, image_std=half)

    draw = np.random.default_rng(0)

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        shown = processor([cut(example["image"], draw) for example in examples], return_tensors="pt")["pixel_values"]
        found: dict[str, torch.Tensor] = default_data_collator(
            [{"pixel_values": of, "labels": example["label"]} for of, example in zip(shown, examples, strict=True)]
        )
        return found

    samples: Callable[[list[Any]], dict[str, torch.Tensor]] = collate
    return Recipe(model(shape), Pictures(folder, rows), Counting(samples, samples=True))  # type: ignore[arg-type]


def cut(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Return a random part of a picture in the picture's size, mirrored or not, as torchvision's transforms do it."""
    area, aspect = draw.uniform(*CROP) * SIDE * SIDE, np.exp(draw.uniform(*np.log(_ASPECT)))
    width, height = (min(SIDE, round(float(side))) for side in ((area * aspect) ** 0.5, (area / aspect) ** 0.5))
    left, top = int(draw.integers(SIDE - width + 1)), int(draw.integers(SIDE - height + 1))
    whole = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else whole


def model(shape: str) -> PreTrainedModel:
    """Return the untrained model of a shape, with its last layer."""
    from transformers import AutoModelForImageClassification

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        trunk = new_trunk(SHAPES[shape], IMAGE)
        trunk.save_with(torch.nn.Linear(trunk.width, CLASSES), Path(folder), {"num_labels": CLASSES})
        network: PreTrainedModel = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    return network
