"""Programs that make the shipped tasks' raw data from its public source, with equal bytes on every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _mnist() -> Callable[[Path, Path | None], Path]:
    from graftline.importers.mnist import write

    return write


IMPORTERS: dict[str, Callable[[], Callable[[Path, Path | None], Path]]] = {"mnist": _mnist}
"""By task name: a function that returns the importer, `write(out, source)`; its imports are heavy."""
