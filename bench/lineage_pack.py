"""A store in one file: what the index is built from in measurements, where a million files would measure the disk."""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.lineage_records import Object
from graftline.index.sources import Group, Read


class Pack:
    """The objects of a store one after another, and in memory where each begins. A source for the index."""

    shareable = True

    def __init__(self, path: Path, objects: Iterable[Object]) -> None:
        places: dict[str, list[tuple[str, int, int]]] = {}
        at = 0
        with path.open("wb", buffering=1 << 20) as file:
            for count, (key, data) in enumerate(objects, 1):
                places.setdefault(key.partition("/")[0], []).append((key, at, len(data)))
                file.write(data)
                at += len(data)
                if count % 200_000 == 0:
                    print(f"made {count:,} objects", file=sys.stderr, flush=True)
        self.bytes = at
        self._keys: dict[str, list[str]] = {}
        self._spans: dict[str, np.ndarray[Any, Any]] = {}
        for group, rows in places.items():
            rows.sort()
            self._keys[group] = [key for key, _, _ in rows]
            self._spans[group] = np.array([(start, length) for _, start, length in rows], np.int64)
            rows.clear()
        self._path = path
        self._open()

    def _open(self) -> None:
        self._file = self._path.open("rb", buffering=0)

    def __getstate__(self) -> dict[str, Any]:
        """Keys as one text a group: a million strings would take seconds to send."""
        state = {name: value for name, value in vars(self).items() if name != "_file"}
        return state | {"_keys": {group: "\n".join(keys) for group, keys in self._keys.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._keys = {group: text.split("\n") for group, text in state["_keys"].items()}
        self._open()

    def keys(self, group: Group) -> list[str]:
        return list(self._keys.get(group, ()))

    def read(self, keys: Iterable[str]) -> Iterator[Read]:
        at = -1
        for key in keys:
            group = key.partition("/")[0]
            names = self._keys.get(group, [])
            at += 1
            if not (0 <= at < len(names) and names[at] == key):  # not the one after the last
                at = bisect_left(names, key)
            found = at < len(names) and names[at] == key
            yield key, self._bytes(group, at) if found else None, ""

    def get(self, key: str) -> bytes | None:
        """Return the bytes under `key`, or None."""
        return next(self.read([key]))[1]

    def _bytes(self, group: str, at: int) -> bytes:
        start, length = self._spans[group][at].tolist()
        return os.pread(self._file.fileno(), length, start)
