"""Write a site as files: the pages that the server would answer with, for a folder, a web host or a file:// address."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from graftline.durable import exclusive, output_directory
from graftline.errors import InputError
from graftline.times import utc_now
from graftline.ui.site import ASSETS, FRAME_POLICY, Answer, Site, asset_bytes, pages
from graftline.ui.verdicts import verify_store

Progress = Callable[[int, int], None]
MARKER = "graftline-site.json"
"""In the root of every exported site: a folder without it is not replaced."""


def export(site: Site, out: Path, progress: Progress = lambda done, of: None, *, verify: bool = True) -> int:
    """Write `site` to the folder `out` and return the number of pages; an earlier export there is replaced in one step.

    Args:
        site: what to write.
        out: a folder that is new, empty or an earlier export.
        progress: called with the number of files hashed, then of pages written, and of all.
        verify: whether to verify the store, for the verdict on each release's page.

    Raises:
        InputError: `out` holds something else; or a page that is linked cannot be made.
        BusyError: another export is writing there.
    """
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(out, "holds something other than an exported site", fix="give a new folder")
    verdict = verify_store(site.store, progress) if verify else None
    with site.open_index() as index, exclusive(out, what="graftline ui --export"), output_directory(out) as folder:
        still = replace(site, served=False, verdict=verdict)
        wanted = list(dict.fromkeys(pages(still.ask(index, {}))))
        still = replace(still, written=frozenset(wanted))
        for name in ASSETS:
            _write(folder / "static" / name, asset_bytes(name))
        for number, path in enumerate(wanted, 1):
            _write(folder / path, _bytes(still.answer_from(index, path, {})))
            progress(number, len(wanted))
        facts = {"store": site.store.url, "written": utc_now(), "pages": len(wanted)}
        _write(folder / MARKER, json.dumps(facts, indent=1).encode())
    return len(wanted)


def _bytes(answer: Answer) -> bytes:
    """Return what to write. A page that cannot be shown is written as such: the rest is not lost over it."""
    if answer.policy == FRAME_POLICY:
        policy = FRAME_POLICY.removesuffix("; sandbox")  # no header goes with a file; its frame is sandboxed
        return f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{policy}">'.encode() + answer.data
    return answer.data


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
