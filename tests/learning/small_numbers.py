"""Two small tasks whose label is numbers: `images` and `texts`.

What is told is measured from the inputs themselves, not by a person, so that it is known to be true and an exact answer
exists:
- two numbers of an MNIST digit (data/mnist, 28x28): `ink`, the mean of its pixels from 0 to 1, and `slant`, the shear
  that its second moments say: sum(xy)/sum(yy) about the centre of its ink, y upwards. They tell nothing of which
  digit it is.
- one number of a WordNet gloss (data/glosses): the mean length of its words in characters. It tells nothing of what the
  gloss means.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import small
import small_text
from session import once

LABEL = {
    "images": {"type": "numbers", "names": ["ink", "slant"], "min": -5, "max": 5},
    "texts": {"type": "float", "min": 1, "max": 100, "nullable": True},
}


def measures(pixels: np.ndarray) -> list[list[float]]:
    """Return ink and slant of (n, 28, 28) pixels from 0 to 255."""
    y, x = np.mgrid[27:-1:-1, 0:28].astype(float)
    found = []
    for image in pixels.astype(float) / 255:
        cy, cx = (image * y).sum() / image.sum(), (image * x).sum() / image.sum()
        slant = (image * (x - cx) * (y - cy)).sum() / (image * (y - cy) ** 2).sum()
        found.append([image.mean(), slant])
    return found


def raw(kind: str) -> pa.Table:
    if kind == "images":
        table = pq.read_table(small.RAW).slice(0, 600)
        pixels = np.array(table["image"].to_pylist()).reshape(-1, 28, 28)
        return pa.table({"image": table["image"], "numbers": measures(pixels)})
    texts = pq.read_table(small_text.RAW, columns=["text"])["text"].to_pylist()[:2400]
    known = [float(np.mean([len(word) for word in text.split()])) for text in texts]
    return pa.table({"text": texts, "numbers": [*known[:2200], *([None] * 200)]})


@once
def dataset(home: Path, kind: str) -> Path:
    """Return the dataset that validate makes of the task, in a folder below `home`; the store is beside it."""
    folder = home / f"small_numbers_{kind}"
    feature = {"type": "image", "shape": [28, 28], "min": 0, "max": 255} if kind == "images" else {"type": "text"}
    columns = {kind.removesuffix("s"): feature, "numbers": {**LABEL[kind], "role": "label"}}
    return small.validated(folder, json.dumps({"columns": columns}), raw(kind))
