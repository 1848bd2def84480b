"""Files of a release, handed out only after their bytes were compared with the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.digests import FileDigest, sha256_bytes
from graftline.errors import InputError
from graftline.releases.layout import manifest_files, read_manifest, release_key
from graftline.store import Store
from graftline.ui.views import Ask, File, NoPageError

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRelease

CARD, REPORT = "README.md", "report.html"
_LARGEST = 20_000_000
"""Bytes of a file that a page holds; more than any picture or card has."""


def manifest_of(store: Store, release: IndexedRelease) -> dict[str, Any]:
    """Return the manifest. Raises MissingError; InputError: it is not the one that the ledger names."""
    return read_manifest(store, release.task, release.version, expected=release.manifest)


def pictures(files: list[FileDigest]) -> list[str]:
    return [file.path for file in files if file.path.endswith(".png") and "/" not in file.path]


def read_file(store: Store, release: IndexedRelease, name: str) -> bytes:
    """Return a file's bytes. Raises NoPageError, MissingError; InputError: they are not what the manifest says."""
    files = {file.path: file for file in manifest_files(manifest_of(store, release))}
    file = files.get(name)
    if file is None or file.size > _LARGEST:
        raise NoPageError(f"{release.reference} has no file {name!r} to show")
    key = f"{release_key(release.task, release.version)}/{name}"
    data = store.get(key).data
    if sha256_bytes(data) != file.sha256:
        raise InputError(f"{store.url}/{key}", f"sha256 {sha256_bytes(data)}", expected=file.sha256)
    return data


def release_file(ask: Ask, task: str, version: int, name: str) -> File:
    """Return a picture of a release, or the report of its run."""
    release = ask.index.release(task, version)
    if release is None:
        raise NoPageError(f"no release {task}@{version}")
    if name == REPORT:
        path = find_report(ask, release)
        if path is None:
            raise NoPageError(f"no report of {release.reference} on this machine")
        return File(path.read_bytes(), "text/html; charset=utf-8", framed=True)
    if not name.endswith(".png"):
        raise NoPageError(f"{name!r} is no picture")
    data = read_file(ask.store, release, name)
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise NoPageError(f"{name!r} is no picture")
    return File(data, "image/png")


def find_report(ask: Ask, release: IndexedRelease) -> Path | None:
    """Return the report of the run that made the release, if its outputs are on this machine."""
    for receipt, report in _reports(ask):
        try:
            if json.loads(receipt.read_bytes()).get("manifest") == release.manifest:
                return report
        except (OSError, ValueError, AttributeError):
            continue  # not a receipt: a run that is at work, or another file of that name
    return None


def _reports(ask: Ask) -> Iterator[tuple[Path, Path]]:
    for folder in ask.folders:
        for receipt in sorted(folder.glob("*/release/release.json")):
            report = receipt.parents[1] / REPORT
            if report.is_file() and report.stat().st_size <= _LARGEST:
                yield receipt, report
