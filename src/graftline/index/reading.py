"""Read and parse the objects of a store in chunks: where there are very many, by other processes beside this one."""

from __future__ import annotations

import gc
import marshal
import os
import shutil
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.index.chunks import Chunk, parse_chunk
from graftline.index.sources import Group, Source
from graftline.processes import die_with_parent

CHUNK = 4000
"""Objects: what many of them share is then looked up once for all of these."""
MANY = 30_000
"""Objects from which another process saves more than its start costs."""
_AHEAD = 50
"""Chunks of up to 4 MB that wait for the writer at most, which stops now and then to make an index."""
_WORKERS = 3
"""At most: the writer takes about as long as one of them."""

_source: Source | None = None
_folder: Path | None = None
"""In a worker: where it reads, and where it leaves what it has parsed."""


@dataclass(slots=True)
class _Job:
    number: int
    group: Group
    keys: list[str]
    future: Future[str]
    begun: bool = False
    """By this process or, so far as this one knows, by a worker."""
    chunk: Chunk | None = None
    """Parsed by this process."""


@contextmanager
def parsed(source: Source, keys: dict[Group, list[str]], folder: Path) -> Iterator[Iterator[tuple[Group, Chunk, int]]]:
    """Begin to parse all objects, and give them group by group and in order: a chunk, and for how many keys it is.

    Args:
        folder: where workers leave what they have parsed; emptied before and removed after.

    Raises:
        GraftlineError: a worker was killed.
    """
    jobs = [(group, names[at : at + CHUNK]) for group, names in keys.items() for at in range(0, len(names), CHUNK)]
    shutil.rmtree(folder, ignore_errors=True)
    workers = min(_WORKERS, len(os.sched_getaffinity(0)) - 1)
    if sum(map(len, keys.values())) < MANY or workers < 1 or not source.shareable:
        yield ((group, parse_chunk(source, group, names), len(names)) for group, names in jobs)
        return
    folder.mkdir(mode=0o700)
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(source, folder)) as pool:
            left = (
                _Job(number, group, names, pool.submit(_parsed, number, group, names))
                for number, (group, names) in enumerate(jobs)
            )
            waiting = deque(islice(left, _AHEAD))  # the workers start while the caller still prepares
            try:
                yield _in_order(source, folder, waiting, left)
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool:
        raise GraftlineError(
            "a process that read the store for the index was killed: make room in memory, then run it again"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_order(
    source: Source, folder: Path, waiting: deque[_Job], left: Iterator[_Job]
) -> Iterator[tuple[Group, Chunk, int]]:
    while waiting:
        yield _next(source, folder, waiting)
        waiting.extend(islice(left, 1))


def _next(source: Source, folder: Path, waiting: deque[_Job]) -> tuple[Group, Chunk, int]:
    """Take the first job's chunk. While a worker is still at it, parse the next that no worker has begun."""
    first = waiting[0]
    while first.chunk is None and not first.future.done():
        idle = next((job for job in waiting if _begin(folder, job)), None)
        if idle is None:
            break
        idle.chunk = parse_chunk(source, idle.group, idle.keys)
    waiting.popleft()
    return first.group, first.chunk or _received(first.future.result()), len(first.keys)


def _begin(folder: Path, job: _Job) -> bool:
    """Return whether a job is now this process's.

    Its future is not cancelled: of a pool with cancelled futures, the end does not come once a worker has died.
    """
    if job.begun:
        return False
    job.begun = True
    return _claimed(folder, job.number)


def _claimed(folder: Path, number: int) -> bool:
    """Claim a job; False if another process has."""
    try:
        os.close(os.open(folder / f"{number}.claim", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _received(path: str) -> Chunk:
    file = Path(path)
    chunk = Chunk.of_tuple(marshal.loads(file.read_bytes()))  # noqa: S302  (our own process wrote it, just now)
    file.unlink()
    return chunk


def _start(source: Source, folder: Path) -> None:
    global _source, _folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent ends it
    die_with_parent()
    gc.disable()  # nothing here refers to itself
    _source, _folder = source, folder


def _parsed(number: int, group: Group, keys: list[str]) -> str:
    """Parse objects and write the chunk to a file of its own; return its path. Nothing to do if it is claimed.

    Not through the pool's pipe: it holds 64 KiB, a chunk has megabytes, and the thread that empties it waits for the
    writer at each piece, so that the worker stands idle more than half of the time.
    """
    assert _source is not None and _folder is not None
    if not _claimed(_folder, number):
        return ""
    path = _folder / f"{number}.chunk"
    path.write_bytes(marshal.dumps(parse_chunk(_source, group, keys).as_tuple(), 2))
    return str(path)
