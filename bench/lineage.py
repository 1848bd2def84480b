"""trace, impact and the index at a million records: how fast they answer, and how fast the index is made.

The store's objects lie in one packed file, in memory where /dev/shm has room, which the index is built from: a million
files would measure the disk. The ledger's end lies in a folder besides, since each question looks there first. Answers
are complete in their counts, and list the first `graftline.lineage.impact.LIMIT` of each kind.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure
from bench.lineage_pack import Pack
from bench.lineage_records import SHARED, Shop
from graftline.index.opening import open_index
from graftline.index.queries import Index
from graftline.lineage import impact
from graftline.lineage.trace import trace
from graftline.store.opening import open_store

QUESTIONS = 500
MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of our own is made in it)
PACKED_BYTES = 5000
"""At most, of the packed file for each record."""


def measure_lineage(records: int) -> list[Figure]:
    """Build the index of `records` records, then ask about a random sample of models and digests."""
    with _folder() as folder, _folder(_memory(records)) as packed:
        os.environ["GRAFTLINE_CACHE"] = str(folder / "cache")
        pack = Pack(packed / "objects", Shop(records).objects())
        last = pack.keys("ledger")[-1]
        (folder / "store/ledger").mkdir(parents=True)
        (folder / "store" / last).write_bytes(pack.get(last) or b"")
        store = open_store(str(folder / "store"))
        seconds = _seconds(lambda _: open_index(store, source=pack, rebuild=True).close(), [""])[0]
        with open_index(store) as index:
            counts = index.counts()
            about = ", ".join(f"{counts[of]:,} {of}" for of in ("records", "releases", "ledger"))
            command = f"python -m bench lineage --records {records}  # {about}"
            figures = [
                Figure("index rebuild", counts["records"] / seconds, ">=", 20_000, "records/s", command),
                *_questions(index, command),
            ]
            asked = {"trace": index.releases(limit=1)[0].reference, "impact": _sample(index, 5)[1][0]}
        return figures + [
            Figure(f"graftline {name}, new process", _command(name, what, store.url), "<", 0.7, "s", command)
            for name, what in asked.items()
        ]


def _memory(records: int) -> Path | None:
    """Return a folder in memory, if there is room in it."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > records * PACKED_BYTES
    return MEMORY if roomy else None


@contextmanager
def _folder(parent: Path | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="graftline-bench-", dir=parent) as name:
        yield Path(name)


def _questions(index: Index, command: str) -> list[Figure]:
    models, digests, shared = _sample(index, QUESTIONS)
    traces = _seconds(lambda model: trace(index, model), models)
    impacts = _seconds(lambda digest: impact.of_digest(index, digest), digests)
    worst = _seconds(lambda digest: impact.of_digest(index, digest), shared)
    most = sum(impact.of_digest(index, shared[0]).reached.counts.values())
    return [
        Figure(f"trace, p95 of {len(traces)} models", _p95(traces), "<", 50, "ms", command),
        Figure(f"impact, p95 of {len(impacts)} digests", _p95(impacts), "<", 50, "ms", command),
        Figure(f"impact, slowest of {len(impacts)}", 1000 * max(impacts), "<", 5000, "ms", command),
        Figure(f"impact of files that reached {most:,} records", _p95(worst), "<", 5000, "ms", command),
    ]


def _sample(index: Index, count: int) -> tuple[list[str], list[str], list[str]]:
    """Return references of random releases; digests of a raw file, the raw data, the data set, the trunk or the
    model of each; and the digests of the raw files that several tasks share, which reached most."""
    chance = random.Random(0)  # noqa: S311  (the same sample each time)
    newest = [index.releases(task, limit=1)[0] for task in index.tasks()]
    some = (chance.choice(newest) for _ in range(count))
    releases = [index.resolve(f"{one.task}@{chance.randint(1, one.version)}") for one in some]
    digests, shared = [], dict[str, None]()
    for number, release in enumerate(releases):
        steps = index.ancestors(release.records.values())
        raw = next(given for step in steps for given in step.inputs if given.files)
        shared |= {file.sha256: None for file in raw.files if file.path == SHARED}
        made = {step.name: step.content for step in steps if step.task == release.task}
        one = (chance.choice(raw.files).sha256, raw.sha256, made["dataset"], made["trunk"], made["model"])
        digests.append(one[number % 5])
    return [release.reference for release in releases], digests, list(shared)


def _seconds(ask: Callable[[str], object], about: Iterable[str]) -> list[float]:
    found = []
    for one in about:
        started = time.perf_counter()
        ask(one)
        found.append(time.perf_counter() - started)
    return found


def _p95(seconds: list[float]) -> float:
    """Return the 95th percentile in milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=20)[-1]


def _command(name: str, about: str, store: str) -> float:
    """Return the median seconds of nine starts."""
    command = [str(Path(sys.executable).with_name("graftline")), name, about, "--store", store]
    return statistics.median(
        _seconds(lambda _: subprocess.run(command, stdout=subprocess.DEVNULL, check=True), ["", *"12345678"])
    )
