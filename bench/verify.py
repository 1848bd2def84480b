"""How fast verify reads large files, against sha256 alone on the same cores."""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.figures import Figure
from graftline.audit.verify.hashing import hash_all, hashers_of
from graftline.store import Store
from graftline.store.opening import open_store

BUFFER = 256 << 10


def measure_verify(*, files: int = 8, megabytes: int = 512, rounds: int = 7) -> list[Figure]:
    """Return verify's rate over a directory store, as a share of the rate of hashing one buffer on every core.

    Rounds of both alternate, so that whatever else the machine does meets both; each figure is the median. The files
    are read once before: a cold disk would be what is measured.

    Args:
        files: how many.
        megabytes: the size of each.
        rounds: how often each of the two is timed.
    """
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        store = open_store(folder)
        keys = [f"releases/bench/1/part-{number}.bin" for number in range(files)]
        for key in keys:
            _write(Path(folder, key), megabytes)
        total, workers = files * megabytes, hashers_of(store)
        _verify(store, keys, workers)
        rates = [(_verify(store, keys, workers), _raw(total, workers)) for _ in range(rounds)]
    command = "python -m bench verify"
    ours, raw = (statistics.median(total / rate[side] for rate in rates) for side in (0, 1))
    share = statistics.median(other / own for own, other in rates)
    return [
        Figure(
            f"verify of {files} files of {megabytes} MiB, {workers} cores", ours, ">=", 0.85 * raw, "MiB/s", command
        ),
        Figure("  as a share of sha256 alone", share, ">=", 0.85, "", command),
    ]


def _write(path: Path, megabytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)


def _verify(store: Store, keys: list[str], workers: int) -> float:
    """Return the seconds that verify's hashing of the files takes."""
    started = time.perf_counter()
    hash_all(store, keys, workers)
    return time.perf_counter() - started


def _raw(megabytes: int, workers: int) -> float:
    """Return the seconds that hashing as many bytes of one buffer takes, on as many cores."""
    buffer = os.urandom(BUFFER)

    def work(count: int) -> None:
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(buffer)

    count = (megabytes << 20) // BUFFER // workers
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, [count] * workers))
    return time.perf_counter() - started
