"""New data from `s3://bucket/prefix`: fetched whole, verified, and kept until the task is made.

A call that is killed, or ends with a question, leaves what was fetched; the next one goes on with it as long as the
bucket lists the same objects.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.durable import exclusive
from graftline.engines.local import OUTPUTS
from graftline.errors import InputError
from graftline.raw.picture_formats import is_hidden
from graftline.store.objects import Object, fetch, list_objects

FETCHED = OUTPUTS / "fetched"
_LONGEST_NAME = 255
"""Bytes of one part of a path, where Linux's file systems end."""


def bring(url: str, until: ExitStack, *, copies: int) -> Path:
    """Return the local folder, or file, that holds the objects at `url`.

    Args:
        url: `s3://bucket/prefix`, or the url of one object.
        until: its end frees what was fetched for other calls.
        copies: how many times the disk is to hold the data in the end.

    Raises:
        InputError: there is nothing, a key is no path of a file, there is no room, or S3 refuses.
        BusyError: another call is at work on the same objects.
        GraftlineError: S3 cannot be reached, or an object changed meanwhile.
    """
    listed = [found for found in list_objects(url, "PATH") if not is_hidden(PurePosixPath(found.name))]
    if not listed:
        raise InputError(url, "no objects", expected="a prefix that objects have", fix="check bucket and prefix")
    _check_names(listed)
    folder = FETCHED / sha256_bytes(canonical_json([url, *(asdict(found) for found in listed)]))[:16]
    until.enter_context(exclusive(folder, what="`graftline new`"))
    missing = [found for found in listed if not (folder / found.name).is_file()]
    there = sum(found.size for found in listed) - (size := sum(found.size for found in missing))
    _check_room(url, (there + size) * copies - there)
    done = 0
    for number, found in enumerate(missing):
        _say(f"new: fetched {number:,} of {len(missing):,} objects, {done:,} of {size:,} bytes", end="")
        _fetch(found, folder / found.name)
        done += found.size
    if missing:
        _say(f"new: fetched {len(missing):,} objects, {size:,} bytes, from {url}", end="\n")
    single = len(listed) == 1 and listed[0].url == url.rstrip("/")
    return folder / listed[0].name if single else folder


def forget(path: Path) -> None:
    """Remove what `bring` returned."""
    shutil.rmtree(next(folder for folder in (path, *path.parents) if folder.parent == FETCHED), ignore_errors=True)


def _fetch(found: Object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{sha256_bytes(path.name.encode())[:16]}.part")
    with aside.open("wb") as file:
        fetch(found, file)
    aside.rename(path)


def _check_names(listed: Sequence[Object]) -> None:
    """Raise InputError for a key that is no path below a folder, or is the folder of another."""
    names = {found.name for found in listed}
    for found in listed:
        parts = found.name.split("/")
        fits = all(part not in ("", ".", "..") and len(part.encode()) <= _LONGEST_NAME for part in parts)
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if not fits or "\0" in found.name or not found.name.isprintable():
            fix = "copy it under another key"
            raise InputError(f"{found.url!r}", "no path of a file", expected="names joined by /", fix=fix)
        if folder := next((name for name in above if name in names), None):
            raise InputError(found.url, f"'{folder}' is an object too", expected="a file or a folder of that name")


def _check_room(url: str, needed: int) -> None:
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(OUTPUTS).free):
        raise InputError(
            url,
            f"{free:,} bytes are free at {OUTPUTS}",
            expected=f"{needed:,}: DVC keeps a copy of its own of the data",
            fix="make room, or take a part of the data",
        )


def _say(line: str, *, end: str) -> None:
    if sys.stderr.isatty() or end:
        print(f"\r{line}" if sys.stderr.isatty() else line, end=end, file=sys.stderr, flush=True)
