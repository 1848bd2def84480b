"""What a test session makes once, for all of its processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path

from filelock import FileLock


def once(make: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that returns what the first process that asked made, of `home` and names.

    `home` is the process's temporary folder. pytest-xdist gives each of its workers one in the session's; `make` gets
    the session's, and passes it to others of its kind.
    """

    @cache
    @wraps(make)
    def made(home: Path, *of: str) -> Path:
        session = home.parent if home.name == f"popen-{os.environ.get('PYTEST_XDIST_WORKER')}" else home
        name = ".".join([make.__module__, make.__name__, *of])
        place = session / f"{name}.made"
        with FileLock(session / f"{name}.lock"):
            if not place.exists():
                place.write_text(str(make(session, *of)))
        return Path(place.read_text())

    return made
