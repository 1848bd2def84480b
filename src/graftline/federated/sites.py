"""sites.yaml: who takes part. A site is a store, where its updates appear, and a key, by which they are signed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from graftline.errors import InputError
from graftline.signing.keyring import Keyring, make_first
from graftline.signing.keys import PublicKey
from graftline.tasks.parameters import Params, parse
from graftline.yamlfile import load_yaml

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
RAW, CONTRACT, KEYS, CACHE = "raw", "expectations.yaml", "keys", "cache"
"""In a site's folder: its data; a contract of its own, if it has one; its keyring; its copies."""


class SiteParams(Params):
    """One site."""

    name: str = Field(pattern=f"^{SITE_NAME.pattern}$")
    """Lower-case letters, digits, `-` and `_`: the order of names is the order of the average."""
    store: str = Field(min_length=1, max_length=1000)
    """Where its updates appear: a folder, relative to the file, or `s3://bucket/prefix`."""
    key: str | None = None
    """Its public key: a PEM file, relative to the file, or the PEM itself. Left out of a site that runs here."""
    folder: str | None = None
    """Of a site that runs on this machine: its folder, with its data in `raw/`."""


class SitesFile(Params):
    """All of them."""

    sites: tuple[SiteParams, ...] = Field(min_length=1, max_length=10_000)
    """Each once."""


@dataclass(frozen=True)
class Site:
    """Who may send an update."""

    name: str
    store: str
    """An absolute path, or `s3://bucket/prefix`."""
    key: PublicKey
    folder: Path | None = None
    """Of a site that runs on this machine; it, and nobody else here, reads the data in it."""


def read_sites(path: Path) -> list[Site]:
    """Return the sites of a file, in the order of their names. A site that runs here gets a key if it has none.

    Raises:
        InputError: the file is not one, a name or a key stands twice, a key is none or missing, or a folder lacks data.
    """
    found = [_site(params, path) for params in parse(load_yaml(path), SitesFile, where=str(path)).sites]
    folders = [str(site.folder) for site in found if site.folder is not None]
    for what, values in (
        ("name", [site.name for site in found]), ("key", [site.key.keyid for site in found]),
        ("store", [site.store.rstrip("/") for site in found]), ("folder", folders),
    ):  # fmt: skip
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InputError(path, f"{what} {twice[0]} stands twice", expected=f"a {what} for each site")
    return sorted(found, key=lambda site: site.name)


def _site(params: SiteParams, path: Path) -> Site:
    where = f"{path}: {params.name}"
    folder = None if params.folder is None else _absolute(params.folder, path)
    if folder is not None and not (folder / RAW).is_dir():
        raise InputError(f"{where}: folder", f"{folder} has no {RAW}/", expected="a folder with the site's data in it")
    if params.key is None and folder is None:
        raise InputError(
            f"{where}: key", "missing", expected="the site's public key", fix="ask it for `graftline keys export`"
        )
    store = params.store if "://" in params.store else str(_absolute(params.store, path))
    return Site(params.name, store, _key(params.key, path, where, folder), folder)


def _key(given: str | None, path: Path, where: str, folder: Path | None) -> PublicKey:
    if given is None:
        assert folder is not None
        return Keyring(folder / KEYS, make_first(folder / KEYS)).signer().public
    if given.lstrip().startswith("-----BEGIN"):
        return PublicKey.from_pem(given, where=f"{where}: key")
    file = _absolute(given, path)
    if not file.is_file():
        raise InputError(f"{where}: key", f"{file} does not exist", expected="a PEM file, or the PEM itself")
    return PublicKey.from_pem(file.read_bytes(), where=file)


def _absolute(given: str, path: Path) -> Path:
    """Return a path that is relative to a file's folder, or absolute."""
    return (path.absolute().parent / given).resolve()
