"""The store in a directory of a local (or POSIX-like network) file system.

A new key is written aside, flushed and linked into place: `link` fails if the name exists, so exactly one
of many writers wins, and a reader never sees a part. A changed key is renamed over under a lock of the key.
The hidden folders `.aside` and `.locks` hold the rest; files that a killed writer left in `.aside` are
swept when old.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftline.digests import sha256_bytes
from graftline.durable import fsync_directory
from graftline.errors import InputError
from graftline.store import MissingError, Stat, Stored, check_key, check_prefix

STALE_SECONDS = 3600.0
"""Age at which a file in `.aside` has no living writer: each write to it renews its time."""

PART_BYTES = 256 << 10
"""What is read at once: it fits into a core's cache, so that hashing it needs no second trip to memory."""


class DirectoryStore:
    """A store in the directory `root`; see `graftline.store.Store` for the promises."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = self.identity = str(self.root)
        self._aside = self.root / ".aside"
        self._swept = False

    def get(self, key: str) -> Stored:
        path = self._path(key)
        with self._reported("read", key):
            data = path.read_bytes()
        return Stored(data, sha256_bytes(data))

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        path = self._path(key)
        with self._reported("write", key):
            self._make_folder(path.parent)
            mine = not path.exists() and self._link(path, content)
            # Also if it was there: an equal earlier try may have been killed between its link and this flush.
            fsync_directory(path.parent)
            return mine or _holds(path, content)

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        path = self._path(key)
        with self._reported("write", key):
            self._make_folder(path.parent)
            with self._locked(key):
                if tag is None:
                    done = not path.exists() and self._link(path, data)
                else:
                    done = path.exists() and sha256_bytes(path.read_bytes()) == tag
                    if done:
                        with self._written_aside(data) as aside:
                            aside.rename(path)
                if done:
                    fsync_directory(path.parent)
            return done

    def list(self, prefix: str) -> list[str]:
        folder = check_prefix(prefix).rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        with self._reported("list", prefix):
            return sorted(key for key in self._keys(start) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._reported("delete", key):
            path.unlink(missing_ok=True)

    def download(self, key: str, path: Path) -> None:
        source = self._path(key)
        with self._reported("read", key):
            shutil.copyfile(source, path)

    def stat(self, key: str) -> Stat:
        path = self._path(key)
        with self._reported("read", key):
            found = path.stat()
        return Stat(found.st_size, f"{found.st_dev}-{found.st_ino}-{found.st_mtime_ns}-{found.st_ctime_ns}")

    def stream(self, key: str) -> Iterator[bytes]:
        path = self._path(key)
        with self._reported("read", key), path.open("rb", buffering=0) as file:
            while part := file.read(PART_BYTES):
                yield part

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        # A symbolic link inside the store could still lead out of it.
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise InputError(
                path, "leads out of the store", expected=f"a path inside {self.url}", fix="remove the link"
            )
        return path

    def _keys(self, folder: Path) -> Iterator[str]:
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    yield Path(parent, name).relative_to(self.root).as_posix()

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and its parents, each flushed: a new key must not vanish with its folder."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_directory(folder.parent)

    def _link(self, path: Path, content: bytes | Path) -> bool:
        """Link `content` to the new name `path`. False: the name was taken meanwhile."""
        with self._written_aside(content) as aside:
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                    raise InputError(
                        self.url, "its file system has no hard links", fix="put the store on another file system"
                    ) from None
                raise
        return True

    @contextmanager
    def _written_aside(self, content: bytes | Path) -> Iterator[Path]:
        """Give a flushed file with `content` in the store's file system; it is gone afterwards."""
        self._make_folder(self._aside)
        self._sweep()
        aside = self._aside / uuid.uuid4().hex
        try:
            with aside.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed writers left behind, once in this process."""
        if self._swept:
            return
        self._swept = True
        for stale in self._aside.iterdir():
            try:
                if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                    stale.unlink()
            except FileNotFoundError:  # its writer, or another sweeper, was quicker
                continue

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of one key; the kernel frees it when the process dies."""
        folder = self.root / ".locks"
        self._make_folder(folder)
        descriptor = os.open(folder / sha256_bytes(key.encode()), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _reported(self, verb: str, key: str) -> Iterator[None]:
        """Turn an operating system error into one line that names the store and the key."""
        try:
            yield
        except OSError as error:
            if verb == "read" and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
                raise MissingError(self.url, key) from None
            reason = (error.strerror or str(error)).lower()
            raise InputError(
                f"store {self.url}",
                f"cannot {verb} {key}: {reason}",
                fix="make room, or correct the path or its permissions",
            ) from None


def _holds(path: Path, content: bytes | Path) -> bool:
    if isinstance(content, bytes):
        return path.stat().st_size == len(content) and path.read_bytes() == content
    return filecmp.cmp(path, content, shallow=False)
