"""`graftline fetch RELEASE --out DIR`: a release's files, each compared with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graftline.cli.stores import STORE, open_given


def fetch(
    release: Annotated[str, typer.Argument(help="task@version or task@alias, such as glosses@champion")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="a new folder, or an empty one")],
    store: Annotated[str, STORE] = "",
) -> None:
    """Copy a release's files, every byte verified, to a folder that `from_pretrained` and servers read."""
    import shutil

    from graftline.errors import InputError
    from graftline.releases.catalogue import resolve
    from graftline.releases.fetching import fetch as fetch_verified
    from graftline.releases.layout import CLAIM, MANIFEST

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"--out {out}", "it is there and not empty", expected="a new or empty folder", fix="remove it"
        )
    opened = open_given(store)
    found = resolve(opened, release)
    folder = fetch_verified(opened, found)
    aside = {CLAIM, MANIFEST}  # the store's own, which a folder store keeps beside the files
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.as_posix() not in aside:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    print(f"{found.name} is in {out} (digest {found.digest})")
