"""The files below a folder, for whatever reads folders: pictures, and the first look at new data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from graftline.raw.batches import LeftOut
from graftline.raw.picture_formats import is_hidden


def walk(folder: Path, left_out: list[LeftOut], *, links: bool = False, inside: str = "") -> Iterator[str]:
    """Yield the files below a folder, by path within it, in the order of names; note what is passed over.

    Args:
        folder: where to begin.
        left_out: gets what is hidden, links, and what has a name that is not UTF-8, which no table can hold.
        links: whether links to files are files too; those to folders never are.
        inside: the folder within it that is walked, with a `/` behind.
    """
    with os.scandir(folder / inside) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{inside}{entry.name}"
        if not _is_text(entry.name):
            left_out.append(LeftOut(os.fsencode(name).decode("utf-8", "replace"), "a name that is not UTF-8"))
        elif is_hidden(PurePosixPath(entry.name)):
            left_out.append(LeftOut(name, "hidden"))
        elif entry.is_symlink() and not (links and entry.is_file()):
            left_out.append(LeftOut(name, "a link"))
        elif entry.is_dir():
            yield from walk(folder, left_out, links=links, inside=f"{name}/")
        else:
            yield name


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
