"""A store in one file: what the index is built from in measurements, where a million files would measure the disk."""

from __future__ import annotations

import os
import sys
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
        self._at: dict[str, dict[str, int]] = {}
        self._spans: dict[str, np.ndarray[Any, Any]] = {}
        for group, rows in places.items():
            rows.sort()
            self._at[group] = {key: number for number, (key, _, _) in enumerate(rows)}
            self._spans[group] = np.array([(start, length) for _, start, length in rows], np.int64)
            rows.clear()
        self._path = path
        self._open()

    def _open(self) -> None:
        self._file = self._path.open("rb", buffering=0)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def keys(self, group: Group) -> list[str]:
        return list(self._at.get(group, ()))

    def read(self, keys: Iterable[str]) -> Iterator[Read]:
        for key in keys:
            yield key, self.get(key), ""

    def get(self, key: str) -> bytes | None:
        """Return the bytes under `key`, or None."""
        group = key.partition("/")[0]
        at = self._at.get(group, {}).get(key)
        if at is None:
            return None
        start, length = self._spans[group][at].tolist()
        return os.pread(self._file.fileno(), length, start)
