"""What the tests of readers share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked, Source


def rows(
    raw: Path, columns: Sequence[str] = ("text", "label"), source: Source | None = None, **asked: Any
) -> list[Any]:
    """Return the rows as tuples of the columns."""
    source = source or Source()
    found: list[Any] = []
    for batch in read_batches(raw_files(raw, source), Asked(columns, source, **asked)):
        found += zip(*(batch.columns[name].to_pylist() for name in columns), strict=True)
    return found
