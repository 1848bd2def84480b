"""What is wrong with a file, as the formats say it alike; and JSON that is in memory whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graftline.errors import InputError, brief


def damaged(
    path: Path, reason: object, whole: str, *, fix: str = "fetch it again, such as with `dvc pull --force`"
) -> InputError:
    """Return the error that a file is not the whole of what it says; `whole` is what it should be."""
    size = path.stat().st_size
    return InputError(path, f"truncated or damaged ({size} bytes; {reason})", expected=f"a whole {whole}", fix=fix)


def half_a_pair(where: object) -> InputError:
    """Return the error that an escape makes a surrogate without its other half: it is no character."""
    return InputError(where, "half of a surrogate pair", expected="characters", fix="correct the \\u escape")


def load_whole(path: Path, form: str, most: int, parts: str, encoding: str = "utf-8") -> tuple[Any, str]:
    """Return what a file of JSON says, and its text.

    Args:
        path: of the file.
        form: whose JSON it is, for people.
        most: bytes that it may have.
        parts: by what it can be divided.
        encoding: of its text.

    Raises:
        InputError: it is larger, or no JSON.
    """
    if (size := path.stat().st_size) > most:
        raise InputError(path, f"{size:,} bytes", expected=f"at most {most:,}", fix=f"divide it by its {parts}")
    try:
        text = path.read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding)
        return json.loads(text), text
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(
            path, f"not JSON ({brief(error)})", expected=form, fix="fetch it again, or correct it"
        ) from None


def amiss(where: str, value: Any, expected: str, form: str) -> InputError:
    """Return the error that a value of a file of JSON is not what stands there in such a `form`."""
    found = "nothing" if value is None else json.dumps(value)[:60]
    return InputError(where, found, expected=f"{expected}, as {form} has there", fix="correct the file")
