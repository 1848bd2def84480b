"""Small JSON documents in a store: one form for writing them, one error for those that cannot be read."""

from __future__ import annotations

import json
from typing import Any

from graftline.canonical import canonical_json
from graftline.errors import GraftlineError
from graftline.store import MissingError, Store


def stored_json(store: Store, key: str) -> tuple[Any, str] | None:
    """Return what is stored under `key` and its tag, or None.

    Raises:
        GraftlineError: it is not JSON, or the store cannot be reached.
    """
    try:
        stored = store.get(key)
    except MissingError:
        return None
    try:
        return json.loads(stored.data), stored.tag
    except ValueError:
        raise GraftlineError(f"{store.url}: {key} is not JSON; it was changed by hand, delete it") from None


def json_bytes(value: Any) -> bytes:
    """Return a document as it is stored."""
    return canonical_json(value) + b"\n"
