"""Raw data of the task `trees`: crowns of trees in aerial pictures, out of the PyPI package deepforest 2.1.0 (MIT).

The pictures are of the National Ecological Observatory Network's airborne camera (NEON, CC0-1.0), 0.1 m a pixel; the
boxes were drawn for DeepForest: B. Weinstein et al., "DeepForest: a Python package for RGB deep learning tree crown
delineation", Methods in Ecology and Evolution, 2020. They come as Pascal VOC writes them.

A picture is cut into tiles, and its tiles are of one split.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image as Picture

from graftline.durable import write_atomic
from graftline.importers.packages import download_wheel, encode_table, read_source, wheel_members
from graftline.raw.media import ENCODED
from graftline.raw.voc import parse_annotation

PACKAGE = "deepforest==2.1.0"
TREES = "trees.parquet"
FOLDER = "deepforest/data/"
SHA256 = {
    "2019_YELL_2_528000_4978000_image_crop2.png": "a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767",
    "2019_YELL_2_528000_4978000_image_crop2.xml": "bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11",
    "2019_YELL_2_541000_4977000_image_crop.png": "178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131",
    "2019_YELL_2_541000_4977000_image_crop.xml": "cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631",
    "OSBS_029.png": "d9477c6a00e4902c7bee487d4c5582c3b8b9a2f77f3908a29628b816b291e6ee",
    "OSBS_029.xml": "1f68c4011d7b351c29ca755072e77f3d16e6fd1f995bd05a9dd4eb952b55373c",
    "SOAP_031.png": "506af051225465bd575e0e3ca0da1e6b8a269464d2144a0415829da78fcd1527",
    "SOAP_061.png": "256508f1a62149bec4a80879077a865caf50e8cace095e6564c76befa480d424",
    "SOAP_061.xml": "4833280af75fd9c47965a93e38945282835e9e725cac412bdb9469d63480947c",
}
"""The files that are taken, and their digests."""
SPLITS = {
    "2019_YELL_2_528000_4978000_image_crop2": "train",
    "2019_YELL_2_541000_4977000_image_crop": "test",
    "OSBS_029": "val",
    "SOAP_061": "val",
    "SOAP_031": "train",
}
"""Each picture's. SOAP_031 has no boxes: nobody looked for its trees."""
TILE, SIDE = 200, 96
"""Height and width of a tile in the picture, and of what is written of it, in pixels."""
STEPS = {"train": 100, "val": 200, "test": 200}
"""From one tile to the next, in pixels: tiles of train overlap, each crown being in up to four of them."""
SEEN, SLIVER = 0.5, 0.1
"""Share of a crown that lies in a tile: from SEEN on it counts; of less than SLIVER it is left out; between, it is a
crowd, neither a hit nor a miss."""
QUALITY = 90
"""JPEG's."""
CLASS = "tree"


class Tile(NamedTuple):
    """A part of a picture."""

    picture: str
    x: int
    """Of its upper left corner in the picture, in pixels, as y."""
    y: int
    pixels: np.ndarray
    """(SIDE, SIDE, 3) uint8."""
    boxes: list[list[float]] | None
    """Left and upper edge, width, height of each crown, in pixels of the tile; None where nobody looked for any."""
    crowd: list[bool]


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/trees.parquet and return its path; equal bytes on every run with one Pillow and one pyarrow.

    Columns: `image` (JPEG of 96 x 96, with its path), `objects` (lists `bbox`, `category`, `iscrowd`, as COCO has them;
    null where nobody looked for any), and the strings `picture` and `split`. `source` is the package's wheel; without
    it it is downloaded.

    Raises:
        InputError: `source` is missing or does not hold the expected files.
        GraftlineError: the package could not be downloaded.
    """
    path = out / TREES
    wanted = f"the wheel of {PACKAGE}"
    digests = {FOLDER + name: digest for name, digest in SHA256.items()}
    wheel = download_wheel(PACKAGE, wanted) if source is None else read_source(source, wanted)
    files = wheel_members(wheel, PACKAGE if source is None else source.name, digests)
    found = [tile for picture in SPLITS for tile in tiles(picture, files)]
    write_atomic(path, encode_table(as_table(found), ["picture", "split"], group_rows=500))
    return path


def tiles(picture: str, files: dict[str, bytes]) -> Iterator[Tile]:
    """Yield the tiles of a picture, row by row; what is left at its right and lower border is no whole tile."""
    name = f"{FOLDER}{picture}"
    crowns = None
    if f"{name}.xml" in files:
        found = parse_annotation(files[f"{name}.xml"], Path(f"{picture}.xml")).objects()["box"]
        crowns = np.array(found, float)
    with Picture.open(io.BytesIO(files[f"{name}.png"]), formats=["PNG"]) as opened:
        whole = opened.convert("RGB")
    step = STEPS[SPLITS[picture]]
    for y in range(0, whole.height - TILE + 1, step):
        for x in range(0, whole.width - TILE + 1, step):
            part = whole.crop((x, y, x + TILE, y + TILE)).resize((SIDE, SIDE), Picture.Resampling.LANCZOS)
            boxes, crowd = (None, []) if crowns is None else inside(crowns, x, y)
            yield Tile(picture, x, y, np.asarray(part), boxes, crowd)


def inside(crowns: np.ndarray, x: int, y: int) -> tuple[list[list[float]], list[bool]]:
    """Return the crowns in a tile, cut at its border, and which are too little of one; `crowns` are (n, 4) edges."""
    cut = np.clip(crowns - [x, y, x, y], 0, TILE)
    share = _areas(cut) / _areas(crowns)
    kept = share >= SLIVER
    edges = cut[kept] * (SIDE / TILE)
    sizes = edges[:, 2:] - edges[:, :2]
    return np.concatenate([edges[:, :2], sizes], axis=1).round(2).tolist(), (share[kept] < SEEN).tolist()


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def as_table(found: list[Tile]) -> pa.Table:
    """Return one row a tile."""
    images: list[dict[str, Any]] = []
    for tile in found:
        file = io.BytesIO()
        Picture.fromarray(tile.pixels).save(file, "JPEG", quality=QUALITY)
        images.append({"bytes": file.getvalue(), "path": f"{tile.picture}/{tile.y:04}_{tile.x:04}.jpg"})
    objects = [
        None
        if tile.boxes is None
        else {"bbox": tile.boxes, "category": [CLASS] * len(tile.boxes), "iscrowd": tile.crowd}
        for tile in found
    ]
    kind = pa.struct([
        ("bbox", pa.list_(pa.list_(pa.float64()))), ("category", pa.list_(pa.string())),
        ("iscrowd", pa.list_(pa.bool_())),
    ])  # fmt: skip
    return pa.table(
        {
            "image": pa.array(images, ENCODED),
            "objects": pa.array(objects, kind),
            "picture": pa.array([tile.picture for tile in found], pa.string()),
            "split": pa.array([SPLITS[tile.picture] for tile in found], pa.string()),
        }
    )
