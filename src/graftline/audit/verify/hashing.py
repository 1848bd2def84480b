"""Hash objects of a store on all cores, in bounded memory, and go on where an interrupted run stopped."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.cache import cache_folder
from graftline.digests import sha256_bytes
from graftline.environment import cpu_count
from graftline.store import MissingError, Stat

if TYPE_CHECKING:
    from graftline.store import Store

REMOTE_READERS = 16
"""Requests at once to a store that is not a folder: each waits for the network."""
_TELL = 8 << 20
_WAITING = 1000
Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""


@dataclass(frozen=True)
class Hashed:
    """An object as it was found."""

    size: int
    sha256: str
    resumed: bool = False


class _StoppedError(Exception):
    """The run ends: nobody waits for this hash."""


class State:
    """What an interrupted run had hashed: a line each, beside the store's other caches. A line counts only while the
    object's size and tag (inode and times, or ETag) are what they were."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume:
            self._read()
        self._file = path.open("a" if resume else "w", encoding="utf-8")

    @classmethod
    def of(cls, url: str, *, resume: bool) -> State:
        return cls(cache_folder() / "verify" / f"{sha256_bytes(url.encode())}.jsonl", resume=resume)

    def _read(self) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                key, identity, digest = json.loads(line)
                self._known[key] = (str(identity), str(digest))
            except (ValueError, TypeError):  # the last line of a run that was killed
                continue

    def get(self, key: str, stat: Stat) -> str | None:
        known = self._known.get(key)
        return known[1] if known and known[0] == f"{stat.size} {stat.tag}" else None

    def put(self, key: str, stat: Stat, digest: str) -> None:
        with self._lock:
            self._file.write(json.dumps([key, f"{stat.size} {stat.tag}", digest]) + "\n")
            self._file.flush()

    def close(self, *, done: bool) -> None:
        """Close; a run that came to its end leaves nothing to go on from."""
        self._file.close()
        if done:
            self._path.unlink(missing_ok=True)


def hash_all(
    store: Store,
    keys: Sequence[str],
    workers: int,
    state: State | None = None,
    progress: Progress = lambda done, of: None,
) -> dict[str, Hashed | None]:
    """Return size and sha256 of each object; None where there is none.

    Args:
        store: a directory's objects are read in place, those of S3 as a stream.
        keys: which.
        workers: how many at once.
        state: of an earlier run and of this one.
        progress: called after each part of each object.
    """
    listed = dict(stats(store, keys, workers))
    # The largest first: at the end no core works alone for long.
    there = sorted((key for key in keys if listed[key]), key=lambda key: (-_size(listed[key]), key))
    total, done, lock, stop = sum(_size(listed[key]) for key in there), 0, threading.Lock(), threading.Event()

    def tell(count: int) -> None:
        nonlocal done
        if stop.is_set():
            raise _StoppedError
        with lock:
            done += count
            progress(done, total)

    def work(key: str) -> tuple[str, Hashed | None]:
        stat = listed[key]
        assert stat is not None
        if state and (known := state.get(key, stat)):
            tell(stat.size)
            return key, Hashed(stat.size, known, resumed=True)
        try:
            found = _hash(store, key, tell)
        except MissingError:  # removed meanwhile
            return key, None
        if state:
            state.put(key, stat, found.sha256)
        return key, found

    found: dict[str, Hashed | None] = {key: None for key in keys if not listed[key]}
    if workers == 1:
        return found | dict(map(work, there))
    with ThreadPoolExecutor(workers) as pool:
        try:
            found.update(_bounded(pool, work, there))
        except BaseException:  # such as Ctrl-C: not after the file of 5 GB that is being read
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def read_all(store: Store, keys: Sequence[str], readers: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield the content of small objects, so many read at once, in the order of `keys`; None where there is none."""

    def read(key: str) -> bytes | None:
        try:
            return store.get(key).data
        except MissingError:
            return None

    if readers == 1:
        yield from ((key, read(key)) for key in keys)
        return
    rest = iter(keys)
    with ThreadPoolExecutor(readers) as pool:
        while part := list(islice(rest, _WAITING)):
            yield from zip(part, pool.map(read, part), strict=True)


def stats(store: Store, keys: Sequence[str], readers: int) -> list[tuple[str, Stat | None]]:
    """Return each key with its size and tag, so many asked for at once; None where there is none."""
    if readers == 1 or not keys:
        return [(key, _stat(store, key)) for key in keys]
    with ThreadPoolExecutor(readers) as pool:
        return list(zip(keys, pool.map(lambda key: _stat(store, key), keys), strict=True))


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[str], tuple[str, Hashed | None]], keys: Sequence[str]
) -> Iterator[tuple[str, Hashed | None]]:
    """Yield results as they come; at most _WAITING are under way."""
    rest, running = iter(keys), set[Future[tuple[str, Hashed | None]]]()
    while True:
        running |= {pool.submit(work, key) for key in islice(rest, _WAITING - len(running))}
        if not running:
            return
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        yield from [future.result() for future in ended]


def _hash(store: Store, key: str, tell: Callable[[int], None]) -> Hashed:
    digest, size, untold = hashlib.sha256(), 0, 0
    for part in store.stream(key):
        digest.update(part)
        size, untold = size + len(part), untold + len(part)
        if untold >= _TELL:
            tell(untold)
            untold = 0
    tell(untold)
    return Hashed(size, digest.hexdigest())


def _stat(store: Store, key: str) -> Stat | None:
    try:
        return store.stat(key)
    except MissingError:
        return None


def _size(stat: Stat | None) -> int:
    return stat.size if stat else 0


def readers_of(store: Store) -> int:
    """Return how many small objects to read at once: of a folder one after another, for no time is spent waiting."""
    return 1 if store.local_path("ledger") is not None else REMOTE_READERS


def hashers_of(store: Store) -> int:
    """Return how many large objects to hash at once: one on each core, or as many as the network bears."""
    return cpu_count() if store.local_path("ledger") is not None else REMOTE_READERS
