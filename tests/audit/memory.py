"""A store in memory, to copy and change a thousand times: the bytes of a real one, read as those of a server are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from graftline.digests import sha256_bytes
from graftline.store import MissingError, Stat, Store, Stored


class MemoryStore:
    """What verify reads of a store. `content` is its keys and bytes."""

    def __init__(self, url: str, content: dict[str, bytes]) -> None:
        self.url, self.identity, self.content = url, url, content

    @classmethod
    def of(cls, store: Store) -> MemoryStore:
        """Return a copy of a store."""
        return cls(store.url, {key: store.get(key).data for key in store.list("")})

    def get(self, key: str) -> Stored:
        if key not in self.content:
            raise MissingError(self.url, key)
        return Stored(self.content[key], sha256_bytes(self.content[key]))

    def list(self, prefix: str) -> list[str]:
        return sorted(key for key in self.content if key.startswith(prefix))

    def stat(self, key: str) -> Stat:
        return Stat(len(self.get(key).data), self.get(key).tag)

    def stream(self, key: str) -> Iterator[bytes]:
        yield self.get(key).data

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key).data)

    def local_path(self, key: str) -> Path | None:
        return None

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        data = content if isinstance(content, bytes) else content.read_bytes()
        return self.content.setdefault(key, data) == data

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        known = self.content.get(key)
        if (None if known is None else sha256_bytes(known)) != tag:
            return False
        self.content[key] = data
        return True

    def delete(self, key: str) -> None:
        self.content.pop(key, None)
