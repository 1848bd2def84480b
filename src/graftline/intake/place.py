"""data/<task>/ whole or not at all: written aside, given to DVC there, then renamed; the list of tasks follows."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from graftline.durable import exclusive, fsync_directory, write_atomic, write_new
from graftline.engines.local import OUTPUTS, track
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.tasks.documents import listed_tasks
from graftline.tasks.parameters import TASK_NAME

Way = Literal["copy", "link", "take"]


def check_name(task: str) -> None:
    """Raise InputError unless a task of this name can be made."""
    if not TASK_NAME.fullmatch(task):
        raise InputError("new", f"'{task}'", expected="a name of lower-case letters, digits, '-' and '_'")
    listed = task in listed_tasks()
    if (ROOT / "data" / task).exists():
        fix = "give another name, or move it away"
        unlisted = "" if listed else f"; if it is whole, add `- {task}` to data/tasks.yaml"
        raise InputError(ROOT / "data" / task, "exists already", fix=fix + unlisted)
    if listed:
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
        way: copy, or link: data/<task>/raw and DVC's cache then share one copy, which is read-only; or take: the files
            are nobody's else, and need no copy where they can be linked.

    Raises:
        InputError: the task exists by now or there is no room for the data.
    """
    final = ROOT / "data" / task
    with exclusive(OUTPUTS / "new", what="`graftline new`"):  # of any task: all change the list of tasks
        check_name(task)
        _check_room(files, way)
        for left in (ROOT / "data").glob(".*.new"):  # by a call that was killed
            shutil.rmtree(left)
        aside = ROOT / "data" / f".{task}.new"
        placed = False
        try:
            (aside / "raw").mkdir(parents=True)
            for name, text in texts.items():
                write_new(aside / name, text.encode())
            for inner, file in files.items():
                target = aside / "raw" / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                _take(file, target, way)
            track(aside / "raw", linked=way == "link")
            aside.rename(final)
            placed = True
            fsync_directory(final.parent)
            _list(task)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            if placed and task not in listed_tasks():
                shutil.rmtree(final, ignore_errors=True)
            raise
    return final


def _check_room(files: dict[str, Path], way: Way) -> None:
    size = sum(file.stat().st_size for file in files.values())
    free = shutil.disk_usage(ROOT).free
    needed = size * (2 if way == "copy" else 1)  # with `take` DVC's copy is the only new one
    if needed > free:
        raise InputError(
            ROOT / "data",
            f"{free:,} bytes are free",
            expected=f"{needed:,}: the data has {size:,}, and DVC keeps a copy of its own",
            fix="make room" + ("" if way == "link" else ", or add --link to have one copy less"),
        )


def _take(file: Path, target: Path, way: Way) -> None:
    """Link or copy a file; a copy is by reference, which takes neither time nor room, where the file system can."""
    from dvc_objects.fs.system import reflink

    source = file.resolve()
    if way != "copy":
        with suppress(OSError):  # on another file system
            target.hardlink_to(source)
            return
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
