"""Ask a row index of 100 million rows, and one of many small datasets: `python -m bench rows`.

`rows.parquet` of 100 million random digests is made in a temporary folder, the index is built as publish builds it,
and questions are asked of it. The second store has 200 tasks with 100 dataset versions each, of 500 rows.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Figure
from graftline.rows.building import build
from graftline.rows.finding import find_row
from graftline.rows.segments import SPLITS
from graftline.store import Store
from graftline.store.opening import open_store

COMMAND = "python -m bench rows"
CHUNK = 1_000_000
QUESTIONS = 200
NEEDED = 9 << 30
"""Free bytes that 100 million rows take at most: Parquet, the sorter's files, the shards, one after another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000, help="0 to leave it out")
    parser.add_argument("--tasks", type=int, default=200, help="0 to leave it out")
    parser.add_argument("--versions", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.rows:
        print(*measure_large(arguments.rows), sep="\n", flush=True)
    if arguments.tasks:
        print(*measure_many(arguments.tasks, arguments.versions), sep="\n", flush=True)


def measure_rows() -> list[Figure]:
    return [*measure_large(100_000_000), *measure_many(200, 100)]


def measure_large(count: int) -> list[Figure]:
    """One dataset of `count` rows."""
    if shutil.disk_usage(tempfile.gettempdir()).free < NEEDED:
        raise SystemExit(f"bench rows needs {NEEDED >> 30} GiB free in {tempfile.gettempdir()}")
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as name:
        folder = Path(name)
        asked = write_rows(folder / "rows.parquet", count)
        store = open_store(str(folder / "store"))
        seconds = _timed(lambda: build(folder / "rows.parquet", store, "large", "0" * 64))
        size = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
        times = [_timed(partial(_ask, store, digest)) for digest in asked]
    return [
        *_question(f"question about one of {count:,} rows", times),
        Figure(f"index of {count:,} rows", size / count, "<=", 20, "bytes a row", COMMAND),
        Figure(f"building the index of {count:,} rows", seconds, "<=", 1200, "s", COMMAND),
    ]


def measure_many(tasks: int, versions: int, size: int = 500) -> list[Figure]:
    """Many small datasets: each version of a task has a few rows more than the one before, and less."""
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as name:
        folder = Path(name)
        store, generator = open_store(str(folder / "store")), np.random.default_rng(1)
        asked = []
        for task in range(tasks):
            digests = generator.bytes(32 * (size + 10 * versions))
            for version in range(versions):
                part = digests[320 * version : 320 * version + 32 * size]
                _write(folder / "rows.parquet", [(part, 0)])
                build(folder / "rows.parquet", store, f"task-{task}", f"{task:032x}{version:032x}")
            asked.append(digests[320 * (versions - 1) :][:32])
        step = max(1, tasks // 20)
        times = [_timed(partial(_ask, store, digest)) for digest in asked[::step]]
    return _question(f"question about a row in {tasks} tasks of {versions} datasets", times)


def write_rows(path: Path, count: int) -> list[bytes]:
    """Write `count` random digests; return QUESTIONS of them."""
    generator, asked = np.random.default_rng(0), []

    def chunks() -> Iterator[tuple[bytes, int]]:
        for first in range(0, count, CHUNK):
            raw = generator.bytes(32 * min(CHUNK, count - first))
            asked.append(raw[:32])
            yield raw, first

    _write(path, chunks())
    return [digest for digest in asked for _ in range(max(1, QUESTIONS // len(asked)))][:QUESTIONS]


def _write(path: Path, chunks: Iterable[tuple[bytes, int]]) -> None:
    schema = pa.schema([("row", pa.int64()), ("digest", pa.binary(32)), ("split", pa.string())])
    with pq.ParquetWriter(path, schema, use_dictionary=["split"], compression="none") as writer:
        for raw, first in chunks:
            count = len(raw) // 32
            digests = pa.Array.from_buffers(pa.binary(32), count, [None, pa.py_buffer(raw)])
            splits = pa.array(np.array(SPLITS, object)[np.arange(count) % 3], pa.string())
            writer.write_table(pa.table([pa.array(range(first, first + count)), digests, splits], schema=schema))


def _ask(store: Store, digest: bytes) -> None:
    assert find_row(store, digest), "the index lacks a row"


def _question(what: str, seconds: list[float]) -> list[Figure]:
    return [
        Figure(f"{what}, slowest of {len(seconds)}", max(seconds), "<=", 1, "s", COMMAND),
        Figure(f"{what}, median", statistics.median(seconds), "<=", 1, "s", COMMAND),
    ]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
