"""Files and directories that survive a crash: written aside, flushed to the disk, then renamed.

Whoever reads sees the old state or the new one, never a part of one. The order of system calls follows
"All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014): data, its fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftline.errors import BusyError


def fsync_directory(folder: Path) -> None:
    """Flush a folder's entries, so that a rename or a new name in it survives power loss."""
    fsync_file(folder, os.O_DIRECTORY)


def fsync_file(path: Path, flags: int = 0) -> None:
    """Flush a file that was written."""
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and the folder itself."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_file(Path(parent, name))
        fsync_directory(Path(parent))


def write_new(path: Path, data: bytes) -> None:
    """Write a file whole and flushed, for a place that nobody reads yet."""
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)  # the kernel does not name the file when the disk is full
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_new(aside, data)
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


@contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Hold an advisory lock beside `path`; the kernel frees it when the process dies, however it dies.

    Raises:
        BusyError: another process holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(
            path, f"another run of {what} is writing here", fix="wait for it to end, or give another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def output_directory(final: Path) -> Iterator[Path]:
    """Give a new folder to fill; on success it becomes `final`, on failure it is removed.

    An old `final` is moved aside for the moment of the change and deleted last: an error puts it back at once, and
    the next call does where a kill came between. The caller holds the lock of `final`.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.with_name(f".{final.name}.old")
    _recover(final, old)
    for stale in final.parent.glob(f".{final.name}.aside-*"):  # left by a run that was killed
        shutil.rmtree(stale)
    aside = final.with_name(f".{final.name}.aside-{uuid.uuid4().hex}")
    aside.mkdir()
    try:
        yield aside
        fsync_tree(aside)
        if final.exists():
            final.rename(old)
        aside.rename(final)
        fsync_directory(final.parent)
        if old.exists():
            shutil.rmtree(old)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        _recover(final, old)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename:
            error.filename = str(final)  # the kernel does not say where the disk is full
        raise


def _recover(final: Path, old: Path) -> None:
    """Put the old folder back if the change ended half-way; delete it if the new one is in place."""
    if old.exists():
        if final.exists():
            shutil.rmtree(old)
        else:
            old.rename(final)
