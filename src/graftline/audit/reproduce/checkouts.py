"""Clean checkouts of the commits that records name, and the raw data as it was at such a commit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.markers import InvalidMarker, Marker

from graftline.digests import digest_path, sha256_bytes
from graftline.environment import ROOT, code_revision
from graftline.errors import GraftlineError, InputError
from graftline.locks import pins
from graftline.records.model import Record
from graftline.store import MissingError, Store

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class Code:
    """What of a record says which code ran."""

    commit: str | None
    dirty: str | None
    """The sha256 of the difference from the commit, if there was one."""
    lock: str | None
    image: str | None
    task: str
    """The task whose data and parameters are meant."""

    @classmethod
    def of(cls, record: Record) -> Code:
        """Read it from a record. Raises InputError for a commit that is none: it goes to git as an argument."""
        if record.commit is not None and not _COMMIT.fullmatch(record.commit):
            raise InputError(f"record of {record.name}", f"the commit {record.commit[:80]!r}", expected="40 hex digits")
        return cls(record.commit, record.dirty, record.lock, record.image, record.task)


@dataclass(frozen=True)
class Checkout:
    """A folder with a commit's files, and the folder from which Python imports them as `graftline`."""

    folder: Path
    package: Path

    def environment(self) -> dict[str, str]:
        """Return the environment in which the checkout's own code runs."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GRAFTLINE_") or name in ("GRAFTLINE_KEYS", "GRAFTLINE_KEY", "GRAFTLINE_CACHE")
        }
        return kept | {"PYTHONPATH": str(self.package), "GRAFTLINE_ENGINE": "reproduce"}

    def lock(self) -> bytes | None:
        path = self.folder / "requirements.lock"
        return path.read_bytes() if path.is_file() else None


def has_changes_at_hand(code: Code) -> bool:
    """Return whether the work tree here is the recorded commit with the recorded uncommitted changes."""
    here = (code_revision(code.task), code_revision())  # an image holds no task's data
    return code.dirty is not None and {"commit": code.commit, "dirty": code.dirty} in here


def check_out(code: Code, folder: Path) -> Checkout:
    """Clone this repository into `folder` at the recorded commit, with the recorded changes if they are at hand.

    Raises:
        InputError: the record names no commit, or one that this repository lacks.
    """
    if code.commit is None:
        raise InputError(
            "the record", "names no commit", fix="it was made outside a git repository: nothing can be cloned"
        )
    if subprocess.run(
        ["git", "-C", ROOT, "cat-file", "-e", f"{code.commit}^{{commit}}"], capture_output=True, check=False
    ).returncode:
        raise InputError(
            f"commit {code.commit}",
            f"not in the repository {ROOT}",
            fix="fetch the history that has it (`git fetch --unshallow`, or the fork's remote)",
        )
    tree, package = folder / "tree", folder / "package" / "graftline"
    _git("clone", "--quiet", "--local", "--no-checkout", str(ROOT), str(tree))
    _git("-C", str(tree), "checkout", "--quiet", "--detach", code.commit)
    if has_changes_at_hand(code):
        _copy_work_tree(tree)
    package.mkdir(parents=True)
    parts = {part.name: part for part in (tree / "src/graftline").iterdir()}
    for name, part in (parts | {name: tree / name for name in ("components", "pipelines")}).items():
        (package / name).symlink_to(part)
    return Checkout(tree, package.parent)


def _copy_work_tree(tree: Path) -> None:
    """Make the clone's files those of this work tree, ignored ones aside."""
    done = _git("-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, done.split(b"\0")):
        source, target = ROOT / os.fsdecode(name), tree / os.fsdecode(name)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            target.unlink(missing_ok=True)


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise GraftlineError(f"git: {lines[-1] if lines else arguments}")
    return done.stdout


# Raw data


def find_raw(checkout: Checkout, task: str, digest: str) -> tuple[Path | None, str | None]:
    """Return where raw data with the recorded digest lies, and else the digest of what there is; None: nothing.

    Looked at in turn: the work tree here, and what DVC holds of the version that the commit's raw.dvc names (its cache
    here, its remote).
    """
    ours = ROOT / "data" / task / "raw"
    if ours.exists() and digest_path(ours) == digest:
        return ours, digest
    restored = _restored(checkout, task)
    if restored is None or not restored.exists():
        return None, None
    actual = digest_path(restored)
    return (restored if actual == digest else None), actual


def _restored(checkout: Checkout, task: str) -> Path | None:
    """Return the commit's version of the raw data, restored by DVC into the checkout; None if DVC has not got it."""
    pointer = checkout.folder / "data" / task / "raw.dvc"
    raw = pointer.with_suffix("")
    if not pointer.is_file():
        return raw if raw.exists() else None
    _share_cache(checkout)
    target = pointer.relative_to(checkout.folder).as_posix()
    for command in (["checkout", "--quiet", "--force", target], ["pull", "--quiet", "--force", target]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=checkout.folder, capture_output=True, check=False
        )
        if done.returncode == 0:
            return raw
    return None


def _share_cache(checkout: Checkout) -> None:
    """Let the clone read this repository's DVC cache, and its settings that are not in git (a remote's address)."""
    ours = ROOT / ".dvc" / "config.local"
    local = checkout.folder / ".dvc" / "config.local"
    text = ours.read_text(encoding="utf-8") if ours.is_file() else ""
    if "[cache]" not in text:
        text += f"\n[cache]\n    dir = {ROOT / '.dvc' / 'cache'}\n"
    local.write_text(text, encoding="utf-8")


# Packages


def lock_at_hand(checkout: Checkout, digest: str, store: Store) -> bytes | None:
    """Return the lock file with this digest: the commit's, or the one that the store kept."""
    ours = checkout.lock()
    if ours is not None and sha256_bytes(ours) == digest:
        return ours
    try:
        kept = store.get(f"locks/{digest}.txt").data
    except MissingError:
        return None
    return kept if sha256_bytes(kept) == digest else None


@cache  # a release's records mostly name one lock, and to ask for all of its packages takes half a second
def package_differences(lock: bytes) -> tuple[str, ...]:
    """Return each package that is installed here in another version than the lock says, or not at all."""
    found = []
    for name, pinned, marker in pins(lock):
        try:
            if marker and not Marker(marker).evaluate():
                continue
        except InvalidMarker:
            pass
        try:
            here = version(name)
        except PackageNotFoundError:
            found.append(f"{name} {pinned} is not installed")
            continue
        if here != pinned and here.partition("+")[0] != pinned:
            found.append(f"{name} {here} is installed, {pinned} is locked")
    return tuple(found)
