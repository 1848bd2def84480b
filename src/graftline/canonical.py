"""JSON in one form only (RFC 8785), so that equal values have equal digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graftline.errors import InputError


def canonical_json(value: Any) -> bytes:
    """Return `value` as RFC 8785 JSON. Raises ValueError for NaN, infinity and integers beyond 2**53."""
    import rfc8785

    encoded: bytes = rfc8785.dumps(value)
    return encoded


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(path, "the file is missing", fix="run the stage that makes it") from None
    return parse_json(data, path, fix="run the stage that makes it again")


def parse_json(data: bytes, where: object, *, fix: str) -> Any:
    """Return the JSON value in `data`, which `where` holds. Raises InputError if it is none."""
    try:
        return json.loads(data)
    except RecursionError:
        raise InputError(where, "nested too deeply", fix=fix) from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise InputError(where, f"not JSON ({error})", fix=fix) from None
