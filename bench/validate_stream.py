"""Validate many synthetic images in bounded memory: `python bench/validate_stream.py [--rows 2000000]`.

Makes a raw folder of random 28x28 images (Parquet, 250,000 rows a file), runs the validate entry point on it
as a process of its own, prints rows, seconds and that process's peak resident memory, and deletes everything.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.canonical import read_json

SIDE, CLASSES, BATCH, ROWS_A_FILE = 28, 10, 10_000, 250_000
CONTRACT = f"""\
columns:
  image: {{type: image, shape: [{SIDE}, {SIDE}]}}
  label:
    type: integer
    role: label
    classes: {list(range(CLASSES))}
    balance: {{min_share: 0.05, max_share: 0.2}}
near_duplicates: {{min_cosine: 0.99}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, help="where to make the data (default: the temporary folder)")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="graftline-bench-", dir=arguments.folder))
    try:
        made = time.monotonic()
        write_raw(work / "raw", arguments.rows)
        print(f"made {arguments.rows:,} rows in {time.monotonic() - made:.0f} s", flush=True)
        print(json.dumps(measure(work)))
    finally:
        shutil.rmtree(work)


def write_raw(folder: Path, rows: int) -> None:
    """Write `rows` images of random blobs and noise; about 1 in 1,000 has a label outside the classes."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    kind = pa.list_(pa.uint8(), SIDE * SIDE)
    schema = pa.schema([("image", kind), ("label", pa.int64())])
    for number, start in enumerate(range(0, rows, ROWS_A_FILE)):
        with pq.ParquetWriter(
            folder / f"part-{number:04}.parquet", schema, compression="zstd", use_dictionary=False
        ) as file:
            for first in range(start, min(start + ROWS_A_FILE, rows), BATCH):
                count = min(BATCH, rows - first, start + ROWS_A_FILE - first)
                file.write_table(pa.table(random_images(generator, count), schema=schema))


def random_images(generator: np.random.Generator, count: int) -> dict[str, pa.Array]:
    """Return `count` images: 4x4 coarse cells enlarged to 28x28, plus noise; no two are alike."""
    coarse = generator.integers(0, 200, (count, 4, 4), dtype=np.uint8)
    image = np.repeat(np.repeat(coarse, SIDE // 4, axis=1), SIDE // 4, axis=2)
    image += generator.integers(0, 32, image.shape, dtype=np.uint8)
    labels = generator.integers(0, CLASSES, count)
    labels[generator.random(count) < 0.001] = CLASSES
    values = pa.array(image.reshape(-1))
    return {"image": pa.FixedSizeListArray.from_arrays(values, SIDE * SIDE), "label": pa.array(labels)}


def measure(work: Path) -> dict[str, float]:
    """Run the entry point on `work`/raw; return its rows, seconds and peak memory."""
    contract = work / "expectations.yaml"
    contract.write_text(CONTRACT, encoding="utf-8")
    command = [sys.executable, "-m", "graftline.components.validate", "--params", '{"task": "bench"}']
    command += ["--in-raw", str(work / "raw"), "--in-expectations", str(contract), "--store", str(work / "store")]
    started = time.monotonic()
    subprocess.run([*command, "--out-dataset", str(work / "dataset")], check=True)
    seconds = time.monotonic() - started
    rows = pq.ParquetFile(work / "dataset" / "rows.parquet").metadata.num_rows
    peak = read_json(work / "dataset" / "execution.json")["peak_bytes"]
    return {"good_rows": rows, "seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)}


if __name__ == "__main__":
    main()
