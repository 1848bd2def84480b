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


def write_json(value: Any, path: Path) -> None:
    """Write `value` for people and programs, at full precision. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(path, "the file is missing", fix="run the stage that makes it") from None
    except RecursionError:
        raise InputError(path, "nested too deeply", fix="run the stage that makes it again") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise InputError(path, f"not JSON ({error})", fix="run the stage that makes it again") from None
