"""The data sheet of a task, `data/<task>/README.md`: as it was at the commit that a record names, where git has it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from graftline.exports.facts import Facts

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_ROW = re.compile(r"\|\s*([^|]+?)\s*\|\s*(.+?)\s*\|\s*")
_SCALAR = re.compile(r"\*\*|`|\[([^\]]*)\]\([^)]*\)")
_SECONDS = 20.0
"""How long git may take."""


@dataclass(frozen=True)
class Datasheet:
    """A data sheet and where it is from."""

    text: str
    source: str
    """In words: of which commit, or of the checkout as it is now."""

    @property
    def title(self) -> str:
        """The first heading, without its mark."""
        return next((line[2:].strip() for line in self.text.splitlines() if line.startswith("# ")), "")

    def row(self, name: str) -> str:
        """Return what the table at the top says of `name`, such as Licence; an empty string if nothing."""
        for line in self.text.splitlines():
            found = _ROW.fullmatch(line)
            if found and found[1].strip("* ").lower() == name.lower():
                return _SCALAR.sub(r"\1", found[2]).strip()
        return ""


def read_datasheet(facts: Facts, checkout: Path) -> Datasheet | None:
    """Return the sheet of the release's task, or None if neither the repository nor the checkout has one."""
    path = f"data/{facts.release.task}/README.md"
    dataset = facts.named.get("dataset")
    commit = dataset.record.commit if dataset else None
    if commit and _COMMIT.fullmatch(commit) and (text := _at_commit(checkout, commit, path)) is not None:
        return Datasheet(text, f"{path} at commit {commit}, which the record of the data set names")
    try:
        text = (checkout / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    reason = f"the checkout does not have commit {commit}" if commit else "the record names no commit"
    return Datasheet(text, f"{path} as it stood in the checkout when this was written: {reason}")


def _at_commit(checkout: Path, commit: str, path: str) -> str | None:
    command = ["git", "-C", str(checkout), "cat-file", "blob", f"{commit}:{path}"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
