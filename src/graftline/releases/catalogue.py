"""What is released: list releases, find one by version or alias."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.ledger import read_entry
from graftline.releases.layout import ALIAS, MANIFEST, VERSION_KEY, check_task, read_manifest, release_key
from graftline.store import MissingError, Store

CHAMPION = "champion"
_VERSION = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Release:
    """A published version as its manifest describes it; its files are not verified before `fetch`."""

    task: str
    version: int
    path: str
    """Its directory, or its s3 url."""
    digest: str
    """The content digest: equal for two releases of the same bits."""
    created: str
    """ISO 8601, UTC."""
    aliases: tuple[str, ...]
    """The aliases that point at it, sorted."""
    manifest: str
    """The sha256 of manifest.json: of this release and no other."""

    @property
    def name(self) -> str:
        return f"{self.task}@{self.version}"


def list_releases(store: Store, task: str | None = None) -> list[Release]:
    """Return the releases of `task`, or of all, oldest first. Raises InputError for a damaged manifest."""
    if task is not None:
        check_task(task)
    keys = store.list(f"releases/{task}/" if task else "releases/")
    found = [match for key in keys if (match := VERSION_KEY.fullmatch(key)) and match[3] == "manifest"]
    aliases = read_aliases(store, task)
    releases = [read_release(store, match[1], int(match[2]), aliases) for match in found]
    return sorted(releases, key=lambda r: (r.version,) if task else (r.created, r.task, r.version))


def resolve(store: Store, reference: str) -> Release:
    """Return the release that `task@version`, `task@alias` or `task` (its champion) names.

    Raises:
        InputError: there is none; the line lists what there is. Or its manifest or alias was changed.
    """
    task, at, selector = reference.partition("@")
    check_task(task)
    selector = selector if at else CHAMPION
    if _VERSION.fullmatch(selector):
        version = int(selector)
    elif ALIAS.fullmatch(selector):
        pointed = alias_version(store, task, selector)
        if pointed is None:
            raise _no_release(store, task, f"no alias '{selector}'")
        version = pointed
    else:
        raise InputError(f"release '{reference}'", f"'{selector}'", expected="task@version or task@alias")
    try:
        return read_release(store, task, version, read_aliases(store, task))
    except MissingError:
        raise _no_release(store, task, f"no version {version}") from None


def champion(store: Store, task: str) -> Release | None:
    """Return the release that `task@champion` names, or None if nothing was promoted yet."""
    return None if alias_version(store, task, CHAMPION) is None else resolve(store, task)


def read_release(store: Store, task: str, version: int, aliases: Mapping[tuple[str, str], int]) -> Release:
    key = f"{release_key(task, version)}/{MANIFEST}"
    digest = sha256_bytes(store.get(key).data)
    manifest = read_manifest(store, task, version, expected=digest)
    return Release(
        task=task, version=version, path=f"{store.url}/{release_key(task, version)}", digest=manifest["content"],
        created=manifest["created"], manifest=digest,
        aliases=tuple(sorted(name for (of, name), to in aliases.items() if (of, to) == (task, version))),
    )  # fmt: skip


def pointed_at(store: Store, task: str, alias: str) -> dict[str, Any] | None:
    """Return version and content digest of where an alias points."""
    version = alias_version(store, task, alias)
    return (
        None
        if version is None
        else {"version": version, "digest": read_release(store, task, version, {}).digest}
    )


def read_aliases(store: Store, task: str | None) -> dict[tuple[str, str], int]:
    """Return the version that each (task, alias) points at."""
    found = {}
    for key in store.list(f"aliases/{task}/" if task else "aliases/"):
        _, of, name = key.split("/")
        found[of, name.removesuffix(".json")] = parse_alias(store, key, store.get(key).data)["version"]
    return found


def alias_version(store: Store, task: str, alias: str) -> int | None:
    """Return the version that an alias points at, after comparing it with the ledger entry that it names."""
    key = f"aliases/{task}/{alias}.json"
    try:
        value = parse_alias(store, key, store.get(key).data)
    except MissingError:
        return None
    try:
        entry = read_entry(store, value["entry"])
    except MissingError:
        entry = None
    if entry is None or (entry.task, entry.alias, entry.version) != (task, alias, value["version"]):
        raise InputError(
            f"{store.url}/{key}", f"version {value['version']} by entry {value['entry']}",
            expected="what that entry says",
            fix="the alias was changed by hand: set it with `graftline rollback`",
        )  # fmt: skip
    return value["version"]


def parse_alias(store: Store, key: str, data: bytes) -> dict[str, int]:
    try:
        value = json.loads(data)
        if type(value["version"]) is int and type(value["entry"]) is int:
            return {"version": value["version"], "entry": value["entry"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(
        f"{store.url}/{key}",
        "not an alias",
        expected="version and entry",
        fix="the store was changed by hand",
    )


def _no_release(store: Store, task: str, found: str) -> InputError:
    releases = list_releases(store, task)
    if not releases:
        tasks = sorted({match[1] for key in store.list("releases/") if (match := VERSION_KEY.fullmatch(key))})
        return InputError(
            f"task '{task}'",
            f"no release in {store.url}" + (f", which has {', '.join(tasks)}" if tasks else ""),
            fix=f"make one with `graftline run {task}`",
        )  # fmt: skip
    have = ", ".join(str(r.version) + (f" ({', '.join(r.aliases)})" if r.aliases else "") for r in releases)
    return InputError(f"task '{task}'", found, expected=f"one of the versions {have}")
