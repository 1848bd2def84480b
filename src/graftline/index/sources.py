"""Where the index reads from: the keys of each kind of object, and their bytes in the order asked for."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

from graftline.errors import GraftlineError, InputError
from graftline.index.parsing import MAX_OBJECT
from graftline.store import MissingError, Store
from graftline.store.directory import DirectoryStore

Group = Literal["records", "releases", "ledger", "locks"]
KEYS: dict[Group, re.Pattern[str]] = {
    "records": re.compile(r"records/([0-9a-f]{64})\.json"),
    "releases": re.compile(r"releases/([a-z0-9][a-z0-9_-]{0,62})/([1-9][0-9]{0,14})/manifest\.json"),
    "ledger": re.compile(r"ledger/([0-9]{8,15})\.json"),
    "locks": re.compile(r"locks/([0-9a-f]{64})\.txt"),
}
_REQUESTS = 10
"""Of a store over a network, at once: as many connections as boto3 keeps."""

Read = tuple[str, bytes | None, str]
"""A key, its bytes, and if there are none why: an empty reason where nothing is stored."""


class Source(Protocol):
    """Keys and bytes of a store."""

    shareable: bool
    """Whether other processes may read it too, each by a copy of this object."""

    def keys(self, group: Group) -> list[str]:
        """Return the keys of a group, sorted; of releases those of manifests."""
        ...

    def read(self, keys: Iterable[str]) -> Iterator[Read]:
        """Give each object, in order."""
        ...


def source_of(store: Store) -> Source:
    """Return the quickest source for `store`."""
    return DirectorySource(store) if isinstance(store, DirectoryStore) else StoreSource(store)


class StoreSource:
    """Any store, by its own methods; several requests at once."""

    shareable = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, group: Group) -> list[str]:
        return [key for key in self._store.list(f"{group}/") if KEYS[group].fullmatch(key)]

    def read(self, keys: Iterable[str]) -> Iterator[Read]:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            waiting = deque[object]()
            try:
                for key in keys:
                    waiting.append(pool.submit(read_one, self._store, key))
                    if len(waiting) >= 4 * _REQUESTS:
                        yield waiting.popleft().result()  # type: ignore[attr-defined]
                while waiting:
                    yield waiting.popleft().result()  # type: ignore[attr-defined]
            finally:
                pool.shutdown(cancel_futures=True)


class DirectorySource:
    """A directory store, past the checks that `Store.get` makes for each key: none of these keys can leave it."""

    shareable = True

    def __init__(self, store: Store) -> None:
        self._store, self._root = store, store.url

    def keys(self, group: Group) -> list[str]:
        names = self._releases() if group == "releases" else _names(f"{self._root}/{group}")
        match = KEYS[group].fullmatch
        return sorted(key for name in names if match(key := f"{group}/{name}"))

    def _releases(self) -> Iterator[str]:
        base = f"{self._root}/releases"
        for task in _names(base):
            if not Path(base, task).is_symlink():
                names = (f"{task}/{version}/manifest.json" for version in _names(f"{base}/{task}"))
                # without a manifest a version was only claimed
                yield from (name for name in names if os.path.lexists(f"{base}/{name}"))

    def read(self, keys: Iterable[str]) -> Iterator[Read]:
        for key in keys:
            try:
                yield key, read_file(f"{self._root}/{key}"), ""
            except FileNotFoundError:
                yield key, None, ""
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link: allowed where it stays inside the store
                    yield read_one(self._store, key)
                else:
                    yield key, None, os.strerror(error.errno or 0).lower()


def read_one(store: Store, key: str) -> Read:
    """Read one object by the store's own way. Raises GraftlineError if the store cannot be reached."""
    try:
        return key, store.get(key).data, ""
    except MissingError:
        return key, None, ""
    except InputError as error:
        return key, None, error.found


def read_file(path: str) -> bytes:
    """Return a file's bytes, one more than MAX_OBJECT at most; follows no link and waits for no pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, min(os.fstat(descriptor).st_size, MAX_OBJECT) + 1)
    finally:
        os.close(descriptor)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (there may be a million, and Path.iterdir makes an object of each)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise GraftlineError(f"{folder}: cannot be read ({os.strerror(error.errno or 0).lower()})") from None
