"""Where this machine keeps what can be made again: fetched releases, verified entries, indexes."""

from __future__ import annotations

import os
from pathlib import Path

from graftline.errors import InputError


def cache_folder() -> Path:
    """Return $GRAFTLINE_CACHE, or ~/.cache/graftline. Raises InputError without either."""
    if given := os.environ.get("GRAFTLINE_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "graftline"
    except RuntimeError:  # a user id without a name, as in many containers
        raise InputError(
            "GRAFTLINE_CACHE",
            "not set, and this user has no home",
            expected="a folder that may be written",
            fix="set it",
        ) from None
