"""A checkout's history, as the command `git` tells it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from graftline.errors import InputError


def git(root: Path, *arguments: str) -> str:
    """Return what git says in the checkout at `root`, without white space around it. Raises InputError."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["git failed"])[0]
        raise InputError(root, reason, expected="a git repository with a commit")
    return done.stdout.strip()
