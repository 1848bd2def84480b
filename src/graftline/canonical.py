"""JSON in one form only (RFC 8785), so that equal values have equal digests."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from graftline.errors import InputError

_LARGEST = (1 << 53) - 1
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def canonical_json(value: Any) -> bytes:
    """Return `value` as RFC 8785 JSON. Raises ValueError for NaN, infinity and integers beyond 2**53."""
    if _is_plain(value):
        with suppress(UnicodeEncodeError):  # half of a surrogate pair, which the library refuses
            return _ENCODER.encode(value).encode()
    import rfc8785

    encoded: bytes = rfc8785.dumps(value)
    return encoded


def _is_plain(value: Any) -> bool:
    """Return whether Python's encoder, which is ten times as fast as the library's, writes a value in the same form.

    It does unless there are floats, or keys that UTF-16 may order otherwise.
    """
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and key.isascii() for key in value) and all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return kind is str or kind is bool or value is None or (kind is int and -_LARGEST <= value <= _LARGEST)


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
