"""data/<task>/ whole or not at all: written aside, given to DVC there, then renamed; the list of tasks follows."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from graftline.durable import exclusive, fsync_directory, write_atomic, write_new
from graftline.engines.local import track
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.tasks.documents import listed_tasks
from graftline.tasks.parameters import TASK_NAME

Way = Literal["copy", "link", "move"]
_ROOM = 2
"""Copies of the data that are made: data/<task>/raw and DVC's cache."""


def check_name(task: str) -> None:
    """Raise InputError unless a task of this name can be made."""
    if not TASK_NAME.fullmatch(task):
        raise InputError("new", f"'{task}'", expected="a name of lower-case letters, digits, '-' and '_'")
    if (ROOT / "data" / task).exists():
        raise InputError(ROOT / "data" / task, "exists already", fix="give another name, or move it away")
    if task in listed_tasks():
        raise InputError(ROOT / "data/tasks.yaml", f"the task '{task}' is listed already", fix="take the line out")


def raw_paths(path: Path, files: list[Path]) -> dict[str, Path]:
    """Return the files to take, by their place below raw/. Raises InputError for one that lies elsewhere."""
    top = path.resolve()
    inside = top if top.is_dir() else top.parent
    found = {}
    for file in files:
        if not file.resolve().is_relative_to(inside):
            raise InputError(file, f"a link to {file.resolve()}", expected=f"files inside {path}", fix="copy it there")
        found[os.path.relpath(file, path if path.is_dir() else path.parent)] = file
    return found


def place(task: str, texts: dict[str, str], files: dict[str, Path], way: Way) -> Path:
    """Make data/<task>/ of its files' texts and the raw data, list the task, and return the folder.

    Args:
        task: a name that `check_name` lets pass.
        texts: each file's content by its name.
        files: the raw data, by place below raw/.
        way: copy (by reference where the file system can), link (hard links: one file with two names) or move.

    Raises:
        InputError: the task exists by now, there is no room for the data, or it cannot be linked.
    """
    final = ROOT / "data" / task
    with exclusive(final, what=f"`graftline new {task}`"):
        check_name(task)
        _check_room(files, way)
        aside = ROOT / "data" / f".{task}.new"
        if aside.exists():  # left by a call that was killed
            shutil.rmtree(aside)
        taken: list[tuple[Path, Path]] = []
        try:
            (aside / "raw").mkdir(parents=True)
            for name, text in texts.items():
                write_new(aside / name, text.encode())
            for inner, file in files.items():
                target = aside / "raw" / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                _take(file, target, way)
                taken.append((file, target))
            track(aside / "raw")
            aside.rename(final)
            fsync_directory(final.parent)
            _list(task)
        except BaseException:
            _undo(taken if way == "move" else [], aside, final)
            raise
    return final


def _check_room(files: dict[str, Path], way: Way) -> None:
    size = sum(file.stat().st_size for file in files.values())
    free = shutil.disk_usage(ROOT).free
    needed = size * (_ROOM if way == "copy" else _ROOM - 1)
    if needed > free:
        raise InputError(
            ROOT / "data",
            f"{free:,} bytes are free",
            expected=f"{needed:,}: the data has {size:,}, and DVC keeps a copy of its own",
            fix="make room, or take the files with --raw move or --raw link",
        )


def _take(file: Path, target: Path, way: Way) -> None:
    source = file.resolve()
    if way == "copy":
        _copy(source, target)
        return
    act: Callable[[Path, Path], None] = os.link if way == "link" else os.rename
    try:
        act(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise InputError(file, "on another file system than data/", fix="take it with --raw copy") from None


def _copy(source: Path, target: Path) -> None:
    """Copy a file; by reference, which takes neither time nor room, where the file system can."""
    from dvc_objects.fs.system import reflink

    try:
        reflink(str(source), str(target))
    except OSError:
        shutil.copyfile(source, target)


def _list(task: str) -> None:
    """Add the task to data/tasks.yaml, comments kept."""
    path = ROOT / "data/tasks.yaml"
    text = path.read_text(encoding="utf-8")
    write_atomic(path, (text.rstrip("\n") + f"\n  - {task}\n").encode())
    if task not in listed_tasks():
        write_atomic(path, text.encode())
        raise InputError(path, "not a list with a task a line", fix=f"add `{task}` to it, then call again")


def _undo(moved: list[tuple[Path, Path]], aside: Path, final: Path) -> None:
    """Leave all as it was."""
    there = aside if aside.exists() else final
    for source, target in moved:
        with suppress(OSError):
            (there / target.relative_to(aside)).rename(source)
    shutil.rmtree(there, ignore_errors=True)


def files_below(path: Path) -> Iterator[Path]:
    """Yield the regular files of a folder that is one source as a whole, or the file itself."""
    if path.is_file():
        yield path
        return
    for parent, folders, names in os.walk(path):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))
