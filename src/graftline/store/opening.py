"""Open a store by its url."""

from __future__ import annotations

from pathlib import Path

from graftline.errors import InputError
from graftline.store import Store
from graftline.store.directory import DirectoryStore
from graftline.store.s3 import S3Store


def open_store(url: str) -> Store:
    """Return the store at `url`: `s3://bucket/prefix`, or a directory, which the first write makes.

    Raises:
        InputError: the url is of another kind, or names no bucket.
    """
    if url.startswith("s3://"):
        return S3Store.from_url(url)
    if "://" in url or not url:
        raise InputError(
            "--store",
            f"'{url.partition('://')[0]}://...'" if url else "nothing",
            expected="a directory or s3://bucket/prefix",
        )
    return DirectoryStore(Path(url))
