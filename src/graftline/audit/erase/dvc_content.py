"""What DVC holds of raw data and outputs: the versions in git's history, the cache here and the default remote."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.digests import sha256_file
from graftline.errors import GraftlineError

_OID = re.compile(rb"md5: ([0-9a-f]{32}(?:\.dir)?)$", re.MULTILINE)
_LOCKED = re.compile(rb"path: outputs/([^/\s]+)/\S+\n(?: +hash: md5\n)? +md5: ([0-9a-f]{32}\.dir)$", re.MULTILINE)
_FILE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Place:
    """One place where DVC keeps objects by their md5."""

    name: str
    """`cache` or `remote`."""
    odb: Any
    in_git: bool
    """Whether it lies in the work tree and git tracks it: then git's history holds what is deleted from it."""

    def has(self, oid: str) -> bool:
        return bool(self.odb.exists(oid))

    def read(self, oid: str, path: Path) -> None:
        with self.odb.fs.open(self.odb.oid_to_path(oid), "rb") as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)

    def delete(self, oid: str) -> None:
        if self.has(oid):
            self.odb.delete(oid)


@contextmanager
def places(root: Path) -> Iterator[list[Place]]:
    """Give the cache and, if one is set, the default remote; none outside a DVC repository."""
    if not (root / ".dvc").is_dir():
        yield []
        return
    from dvc.config import NoRemoteError
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        found = [Place("cache", repo.cache.local, False)]
        try:
            remote = repo.cloud.get_remote_odb()
            found.append(Place("remote", remote, _tracked(root, Path(str(remote.path)))))
        except NoRemoteError:
            pass
        yield found


def _tracked(root: Path, folder: Path) -> bool:
    if not folder.is_absolute() or not folder.resolve().is_relative_to(root.resolve()):
        return False
    done = subprocess.run(["git", "-C", root, "ls-files", "--", folder], capture_output=True, check=False)
    return bool(done.stdout.strip())


def raw_versions(root: Path, task: str) -> list[str]:
    """Return the md5 of each version of a task's raw data: the present one and those in git's history."""
    pointer = f"data/{task}/raw.dvc"
    texts = [(root / pointer).read_bytes()] if (root / pointer).is_file() else []
    commits = _git(root, "log", "--all", "--format=%H", "--", pointer).split()
    texts += [_git(root, "show", f"{commit.decode()}:{pointer}") for commit in commits]
    return list(dict.fromkeys(match.decode() for text in texts for match in _OID.findall(text)))


def locked_outputs(root: Path, tasks: Iterable[str]) -> list[str]:
    """Return the md5 of each output of the tasks that dvc.lock names, as it is here and in git's history."""
    texts = [(root / "dvc.lock").read_bytes()] if (root / "dvc.lock").is_file() else []
    commits = _git(root, "log", "--all", "--format=%H", "--", "dvc.lock").split()
    texts += [_git(root, "show", f"{commit.decode()}:dvc.lock") for commit in commits]
    wanted = set(tasks)
    found = {match[2].decode(): match[1].decode() for text in texts for match in _LOCKED.finditer(text)}
    return [oid for oid, task in found.items() if task in wanted]


def files_of(found: list[Place], oid: str) -> dict[str, str] | None:
    """Return the md5 of each file of a version by its path; None if no place holds the listing."""
    for place in found:
        if place.has(oid):
            with place.odb.fs.open(place.odb.oid_to_path(oid), "rb") as file:
                listing = json.load(file)
            return {entry["relpath"]: entry["md5"] for entry in listing if _FILE.fullmatch(entry["md5"])}
    return None


def find_content(found: list[Place], wanted: Mapping[str, int]) -> list[str]:
    """Return the md5 of each object of the cache whose sha256 is wanted.

    Args:
        wanted: the size of each file by its sha256: only objects of such a size are read.
    """
    sizes = set(wanted.values())
    return sorted(
        path.parent.name + path.name
        for place in found
        if place.name == "cache" and Path(place.odb.path).is_dir()
        for path in Path(place.odb.path).rglob("*")
        if path.is_file() and path.stat().st_size in sizes and sha256_file(path) in wanted
    )


def add_raw(root: Path, task: str) -> None:
    """Make the raw folder as it lies there the task's data, and hand it to the default remote, if there is one."""
    from dvc.config import NoRemoteError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    folder = f"data/{task}/raw"
    with chdir(root), _quiet(), Repo(str(root)) as repo:
        try:
            repo.add([folder])
            repo.push(targets=[f"{folder}.dvc"])
        except NoRemoteError:
            pass
        except DvcException as error:
            raise GraftlineError(f"dvc, {folder}: {error}; correct it, then run the same command again") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence DVC's messages; its progress bars follow its logger's level."""
    import dvc.stage  # noqa: F401  (importing it sets the loggers up, so that what is set here stays)

    logger = logging.getLogger("dvc")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False).stdout
