"""Programs that make the shipped tasks' raw data from its public source, with equal bytes on every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Importer = Callable[[Path, Path | None], Path]


def _mnist() -> Importer:
    from graftline.importers.mnist import write

    return write


def _glosses() -> Importer:
    from graftline.importers.glosses import write

    return write


def _turkish() -> Importer:
    from graftline.importers.turkish import write

    return write


IMPORTERS: dict[str, Callable[[], Importer]] = {"mnist": _mnist, "glosses": _glosses, "turkish": _turkish}
"""By task name: a function that returns the importer, `write(out, source)`; its imports are heavy."""
