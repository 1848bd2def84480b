"""Read and parse the objects of a store in chunks: by a process of their own where there are very many."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graftline.index.chunks import Chunk, parse_chunk
from graftline.index.sources import Group, Source

if TYPE_CHECKING:
    from concurrent.futures import Future

CHUNK = 1000
"""Objects: what many of them share is then looked up once for all of these."""
MANY = 30_000
"""Objects from which another process saves more than its start costs."""
_AHEAD = 8
"""Chunks that a process may be ahead of the writer."""
_WORKERS = 3
"""At most: the writer takes about as long as one of them."""

_source: Source | None = None
"""In a worker: where it reads."""


def chunks(source: Source, keys: dict[Group, list[str]]) -> Iterator[tuple[Chunk, int]]:
    """Give all objects, group by group and in order, and with each chunk how many keys it is for."""
    jobs = [
        (group, names[at : at + CHUNK]) for group, names in keys.items() for at in range(0, len(names), CHUNK)
    ]
    workers = min(_WORKERS, len(os.sched_getaffinity(0)) - 1)
    if sum(map(len, keys.values())) < MANY or workers < 1 or not source.shareable:
        for group, names in jobs:
            yield parse_chunk(source, group, names), len(names)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(source,)) as pool:
        waiting: deque[tuple[Future[tuple[Any, ...]], int]] = deque()
        try:
            for group, names in jobs:
                waiting.append((pool.submit(_parsed, group, names), len(names)))
                if len(waiting) >= _AHEAD * workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[Future[tuple[Any, ...]], int]]) -> tuple[Chunk, int]:
    future, count = waiting.popleft()
    return Chunk.of_tuple(future.result()), count


def _start(source: Source) -> None:
    global _source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent ends it
    threading.Thread(target=_die_with_parent, daemon=True).start()
    gc.disable()  # nothing here refers to itself
    _source = source


def _die_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _parsed(group: Group, keys: list[str]) -> tuple[Any, ...]:
    assert _source is not None
    return parse_chunk(_source, group, keys).as_tuple()
