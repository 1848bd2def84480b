"""Which files two commits differ in, and which packages a lock names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.digests import sha256_bytes
from graftline.locks import versions
from graftline.store import MissingError

if TYPE_CHECKING:
    from graftline.store import Store

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RUNNING = ("src/graftline/", "components/")


def runs_in_a_step(path: str) -> bool:
    """Return whether a file of the repository is code that a step may run; parameters and data are recorded apart."""
    return path.startswith(_RUNNING) and path.endswith(".py")


def changed_files(repository: Path, before: str, after: str) -> list[tuple[str, str]] | None:
    """Return (status letter, path) of each file that two commits differ in, or None if it has not both."""
    if not all(_COMMIT.fullmatch(commit) for commit in (before, after)):  # a record may hold anything
        return None
    command = ["git", "-C", str(repository), "diff", "--name-status", "--no-renames", "-z", before, after, "--"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:  # no git here
        return None
    if done.returncode:
        return None
    parts = done.stdout.decode(errors="replace").split("\0")
    return list(zip(parts[:-1:2], parts[1::2], strict=True))


def packages_of(store: Store, digest: str) -> dict[str, str] | None:
    """Return the version of each package in the lock of that sha256, or None if the store does not have it whole."""
    try:
        data = store.get(f"locks/{digest}.txt").data
    except MissingError:
        return None
    return versions(data) if sha256_bytes(data) == digest else None
