"""`graftline fetch RELEASE --out DIR`: a release's files, each compared with its manifest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from graftline.cli.stores import STORE, open_given
from graftline.digests import sha256_file
from graftline.durable import exclusive, output_directory
from graftline.errors import InputError
from graftline.releases.catalogue import resolve
from graftline.releases.fetching import fetch as fetch_verified
from graftline.releases.layout import manifest_files, read_manifest


def fetch(
    release: Annotated[str, typer.Argument(help="task@version or task@alias, such as glosses@champion")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="a new folder, an empty one, or one with this release")
    ],
    store: Annotated[str, STORE] = "",
) -> None:
    """Copy a release's files, every byte verified, to a folder that `from_pretrained` and servers read.

    The folder appears whole or not at all; the same again changes nothing.
    """
    if out.is_mount():
        raise InputError(
            f"--out {out}",
            "a volume is mounted there",
            expected="a folder that can be renamed",
            fix="name a folder inside it",
        )
    opened = open_given(store)
    found = resolve(opened, release)
    manifest = read_manifest(opened, found.task, found.version, expected=found.manifest)
    files = {file.path: file.sha256 for file in manifest_files(manifest)}
    with exclusive(out, what="fetch"):
        if not _holds(out, files, found.name):
            folder = fetch_verified(opened, found)
            with output_directory(out) as aside:
                for name in files:
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / name, aside / name)
    print(f"{found.name} is in {out} (digest {found.digest})")


def _holds(out: Path, files: dict[str, str], release: str) -> bool:
    """Return whether a folder is the release of these files (sha256 by path): False if it is missing or empty.

    Raises:
        InputError: it holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    there = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if not path.is_dir()}
    other = sorted(there.keys() ^ files.keys()) or [
        name for name in sorted(files) if sha256_file(there[name]) != files[name]
    ]
    if other:
        raise InputError(
            f"--out {out}",
            f"it is not empty, and not {release} (see {other[0]})",
            expected="a new or empty folder, or one with this release",
            fix="remove it",
        )
    return True
