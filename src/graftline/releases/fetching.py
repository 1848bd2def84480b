"""Get a release's files, every byte of them verified."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from graftline.cache import cache_folder
from graftline.digests import FileDigest, sha256_file
from graftline.durable import fsync_tree
from graftline.errors import InputError
from graftline.releases.catalogue import Release
from graftline.releases.layout import CLAIM, MANIFEST, manifest_files, read_manifest, release_key
from graftline.store import Store


def fetch(store: Store, release: Release) -> Path:
    """Return a local folder with the release's files, each of which was just compared with the manifest.

    A directory store is read in place; for S3 the files are downloaded to a cache ($GRAFTLINE_CACHE, or
    ~/.cache/graftline) by manifest digest.

    Raises:
        InputError: a file is extra, missing or different; the line says which, what was expected and found.
    """
    files = manifest_files(read_manifest(store, release.task, release.version, expected=release.manifest))
    folder = store.local_path(release_key(release.task, release.version))
    if folder is not None:
        _check_folder(folder, files, also=frozenset({CLAIM, MANIFEST}))
        return folder
    return _fetch_to_cache(store, release, files)


def _check_folder(folder: Path, files: list[FileDigest], *, also: frozenset[str] = frozenset()) -> None:
    """Raise InputError unless `folder` holds exactly `files`, and perhaps `also`."""
    have = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - also
    _check_names(str(folder), have, {file.path for file in files})
    for file in files:
        _check_file(folder / file.path, f"{folder}/{file.path}", file)


def _check_names(where: str, have: set[str], want: set[str]) -> None:
    for name in sorted(have ^ want):
        found, expected = ("there", "no such file") if name in have else ("missing", "the file")
        raise InputError(
            f"{where}/{name}", found, expected=f"{expected}, by the manifest", fix="the release was changed: roll back"
        )


def _check_file(path: Path, where: str, file: FileDigest) -> None:
    actual = sha256_file(path)
    if actual != file.sha256:
        raise InputError(
            where,
            f"sha256 {actual}",
            expected=f"{file.sha256}, by the manifest",
            fix="the release was changed: roll back",
        )


def _fetch_to_cache(store: Store, release: Release, files: list[FileDigest]) -> Path:
    """Return the cached folder of a release; what is cached is verified as strictly as what is downloaded."""
    prefix = f"{release_key(release.task, release.version)}/"
    have = {key.removeprefix(prefix) for key in store.list(prefix)} - {CLAIM, MANIFEST}
    _check_names(f"{store.url}/{prefix}".rstrip("/"), have, {file.path for file in files})
    cache = cache_folder() / "releases"
    final = cache / release.manifest
    if final.exists():
        try:
            _check_folder(final, files)
        except InputError:
            shutil.rmtree(final)  # a damaged cache is not a damaged release
        else:
            return final
    cache.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".aside-", dir=cache))
    try:
        for file in files:
            target = aside / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(prefix + file.path, target)
            _check_file(target, f"{store.url}/{prefix}{file.path}", file)
        _into_place(aside, final, lambda: _check_folder(final, files))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def _into_place(aside: Path, final: Path, check: Callable[[], None]) -> None:
    fsync_tree(aside)
    try:
        aside.rename(final)
    except OSError:
        if not final.exists():
            raise
        check()  # another process fetched the same release meanwhile
