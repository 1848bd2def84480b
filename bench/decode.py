"""Decode and pack pictures against Pillow itself, and hold many images in little memory: `python -m bench decode`.

Both sides take turns on the same JPEGs, with two processes each. Pillow's side is nothing but
`Image.open(...).convert("RGB")` to an array, of bytes that lie in each process's memory. Ours reads Parquet of
`{bytes, path}`, checks, converts and names, writes each row to its place in the file of pixels, flushes it to the disk
and keeps the log by which a killed run goes on.
"""

from __future__ import annotations

import io
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Picture

from bench.figures import Figure
from graftline.raw.files import raw_files, read_batches
from graftline.values.ahead import Ahead
from graftline.values.category import String
from graftline.values.contract import Contract
from graftline.values.image import Image
from graftline.values.pixels import npy_header

SIDE, PICTURES, ROUNDS, PROCESSES = 64, 100_000, 3, 2
MANY, BATCH, STEPS = 1_000_000, 256, 200
COMMAND = "python -m bench decode"
_MEMORY = """
import sys, resource, numpy as np
from pathlib import Path
from graftline.values.pixels import Pixels
pixels = Pixels.in_file(Path(sys.argv[1]), np.arange(int(sys.argv[2])), (64, 64, 3))
order = np.random.default_rng(0)
for _ in range(int(sys.argv[3])):
    pixels[order.integers(0, len(pixels), 256)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure() -> list[Figure]:
    """Return the rate as a share of Pillow's, and the memory that a million images take."""
    folder = Path(tempfile.mkdtemp(prefix="graftline-bench-"))
    try:
        return [_rate(folder), _memory(folder)]
    finally:
        shutil.rmtree(folder)


def _rate(folder: Path) -> Figure:
    data = _write(folder / "raw")
    shares = []
    for number in range(ROUNDS):
        ours = _ours(folder / "raw", folder / str(number))
        theirs = _theirs(data)
        print(f"round {number}: {PICTURES / ours:,.0f} pictures a second, Pillow {PICTURES / theirs:,.0f}", flush=True)
        shares.append(theirs / ours)
    return Figure("decoding and packing, share of Pillow's rate", statistics.median(shares), ">=", 0.9, "", COMMAND)


def _write(raw: Path) -> list[bytes]:
    """Write JPEGs of blobs, no two alike, and return them."""
    raw.mkdir()
    generator = np.random.default_rng(0)
    data = []
    for _ in range(PICTURES):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Picture.fromarray(coarse).resize((SIDE, SIDE), Picture.Resampling.BICUBIC)
        picture.save(file := io.BytesIO(), "JPEG", quality=85)
        data.append(file.getvalue())
    images = [{"bytes": picture, "path": f"{number}.jpg"} for number, picture in enumerate(data)]
    labels = [("a", "b")[number % 2] for number in range(PICTURES)]
    pq.write_table(pa.table({"image": images, "label": labels}), raw / "pictures.parquet", use_dictionary=["label"])
    return data


def _ours(raw: Path, folder: Path) -> float:
    """Return the seconds of decoding and packing all pictures."""
    (folder / "dataset").mkdir(parents=True)
    image, label = Image(shape=(SIDE, SIDE), mode="rgb"), String(role="label", classes=("a", "b"))
    contract = Contract(columns={"image": image, "label": label})
    started = time.perf_counter()
    batches = read_batches(raw_files(raw), contract.asked)
    first = next(batches)
    with Ahead(contract, first, folder / "work", "raw", PROCESSES) as ahead:
        rows = sum(batch.rows for batch in ahead.decoded(itertools.chain([first], batches)))
        ahead.link(folder / "dataset", rows)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def _theirs(data: list[bytes]) -> float:
    """Return the seconds that Pillow takes, from when all processes have their share to when the last is done."""
    with ProcessPoolExecutor(PROCESSES, get_context("fork")) as pool:
        shares = [data[number::PROCESSES] for number in range(PROCESSES)]
        return max(pool.map(_decode, shares))


def _decode(data: list[bytes]) -> float:
    started = time.perf_counter()
    for picture in data:
        np.asarray(Picture.open(io.BytesIO(picture)).convert("RGB"))
    return time.perf_counter() - started


def _memory(folder: Path) -> Figure:
    """Return the peak memory of a process that draws batches from a file of a million images, which is sparse."""
    path = folder / "image.npy"
    with path.open("wb") as file:
        file.write(npy_header((MANY, SIDE, SIDE, 3)))
        file.truncate(file.tell() + MANY * SIDE * SIDE * 3)
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(path), str(MANY), str(STEPS)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return Figure("1,000,000 images of 64x64x3 in memory", int(done.stdout) / 2**20, "<=", 1.5, "GiB", COMMAND)
