"""The store: where records, releases, aliases and the ledger live. A directory or an S3 bucket, the same
promises.

    put_if_absent   one winner a key, however many try at once
    replace         compare-and-swap: no update is lost
    get, list       whole objects only: a torn upload is never seen
    delete          for what nothing else refers to: checkpoints and hand-overs of a run that is done

Keys are `/`-separated names of letters, digits, `.`, `_` and `-`; no name starts with a dot, so no key
leaves the store and none collides with the store's own hidden files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from graftline.errors import GraftlineError, InputError

MAX_KEY = 512
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Stored:
    """The content of a key when it was read."""

    data: bytes
    tag: str
    """Opaque; `replace` takes it to mean 'only if nothing changed since'."""


@dataclass(frozen=True)
class Stat:
    """A key's size in bytes, and a tag that is another one whenever its content is."""

    size: int
    tag: str
    """Opaque; of a file its inode and times, so that two equal ones have different tags."""


class MissingError(GraftlineError):
    """Nothing is stored under the key."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        super().__init__(f"{url}: nothing is stored under {key}")


class Store(Protocol):
    """What both backends promise.

    Every method raises InputError for a key outside the alphabet, for a store that this user may not use
    and for a full disk, and GraftlineError when the store cannot be reached after the retries.
    """

    url: str
    """An absolute path, or `s3://bucket/prefix`; no credentials in it, no slash at its end."""
    identity: str
    """What tells it from every other store: the url, and the server unless that is Amazon's, where buckets are one's
    own everywhere. What this machine remembers of a store is kept by it."""

    def get(self, key: str) -> Stored:
        """Return the content of `key`. Raises MissingError."""
        ...

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """Store bytes or a file under `key` unless something is there.

        True: the key now holds exactly these bytes, by this call or by an equal one before. False: others
        are there.
        """
        ...

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        """Store `data` under `key` if its content is still that of `tag` (None: nothing). False: it is not.

        Equal content has equal tags, so content that may return to an old value needs a counter in it.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """Return the keys that start with `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Write the content of `key` to a new file `path`; its caller verifies it. Raises MissingError."""
        ...

    def stat(self, key: str) -> Stat:
        """Return what can be said of `key` without reading it. Raises MissingError."""
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the content of `key` in parts of at most 8 MiB. Raises MissingError; InputError if it is replaced
        meanwhile."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return where `key` (or the folder of the keys below it) can be read in place; None if it cannot."""
        ...


def check_key(key: str) -> str:
    """Return `key`. Raises InputError if it is not one: it then might name something outside the store."""
    if len(key) > MAX_KEY or not all(_NAME.fullmatch(name) for name in key.split("/")):
        shown = key if len(key) <= 80 else key[:77] + "..."
        raise InputError(
            f"store key {shown!r}",
            "not a key",
            expected="names of letters, digits, '.', '_', '-', joined by '/', none starting with a dot",
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`, a key of which the end may be missing. Raises InputError."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix
