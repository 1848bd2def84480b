"""Clones of HEAD to measure in: what a user would have."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftline.environment import ROOT


@contextmanager
def clone_of_head() -> Iterator[Path]:
    """Give a clone of HEAD; it is imported from its own folders and not from the installed checkout."""
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for name in ("components", "pipelines"):  # the layout that is installed
            (clone / "src/graftline" / name).symlink_to(f"../../{name}")
            with (clone / ".git/info/exclude").open("a", encoding="utf-8") as excluded:
                excluded.write(f"/src/graftline/{name}\n")
        yield clone


def environment_of(clone: Path) -> dict[str, str]:
    """Return the environment in which a clone's own code runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    return kept | {"PYTHONPATH": str(clone / "src")}
