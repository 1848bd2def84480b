"""What is released: list releases, find one by version or alias.

The ledger says it, after every entry was verified. What lies in the store without an entry there is not released.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from graftline.errors import InputError
from graftline.ledger.entries import Entry, entry_key
from graftline.ledger.log import Ledger
from graftline.releases.layout import (
    CHAMPION,
    MANIFEST,
    VERSION_KEY,
    check_task,
    parse_reference,
    read_manifest,
    release_key,
)
from graftline.store import MissingError, Store


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
    """Return the releases of `task`, or of all, oldest first.

    One that its publisher has not entered in the ledger yet is not among them, nor one whose folder was deleted.

    Raises:
        InputError: a manifest or an entry of the ledger was changed.
    """
    if task is not None:
        check_task(task)
    keys = store.list(f"releases/{task}/" if task else "releases/")
    found = [match for key in keys if (match := VERSION_KEY.fullmatch(key)) and match[3] == "manifest"]
    if not found:
        return []
    ledger = Ledger(store)
    entries = [entry for match in found if (entry := ledger.released(match[1], int(match[2])))]
    releases = [_release(store, ledger, entry) for entry in entries]
    return sorted(releases, key=lambda r: (r.version,) if task else (r.created, r.task, r.version))


def resolve(store: Store, reference: str) -> Release:
    """Return the release that `task@version`, `task@alias` or `task` (its champion) names.

    Raises:
        InputError: there is none; the line lists what there is. Or its manifest, alias or ledger was changed.
    """
    task, selector = parse_reference(reference)
    if isinstance(selector, int):
        return _find(store, Ledger(store), task, selector)
    ledger, entry = _decided(store, task, selector)
    if entry is None:
        raise _no_release(store, task, f"no alias '{selector}'")
    return _find(store, ledger, task, entry.version)


def champion(store: Store, task: str) -> Release | None:
    """Return the release that `task@champion` names, or None if nothing was promoted yet."""
    ledger, entry = _decided(store, task, CHAMPION)
    return None if entry is None else _find(store, ledger, task, entry.version)


def read_release(store: Store, task: str, version: int, ledger: Ledger | None = None) -> Release:
    """Return a release by its number.

    Args:
        ledger: the store's, if it was read already.

    Raises:
        MissingError: there is none, or the ledger has no entry of it.
        InputError: its manifest is not the one that was entered.
    """
    ledger = ledger or Ledger(store)
    entry = ledger.released(task, version)
    if entry is None:
        raise MissingError(f"{store.url}: the ledger", f"{task}@{version}")
    return _release(store, ledger, entry)


def _release(store: Store, ledger: Ledger, entry: Entry) -> Release:
    """Return the release of an entry. Raises MissingError, InputError."""
    task, version = entry.task, entry.version
    manifest = read_manifest(store, task, version, expected=entry.digest)
    aliases = (name for (of, name), at in ledger.aliases.items() if (of, at.version) == (task, version))
    return Release(
        task=task,
        version=version,
        path=f"{store.url}/{release_key(task, version)}",
        digest=manifest["content"],
        created=manifest["created"],
        manifest=entry.digest,
        aliases=tuple(sorted(aliases)),
    )


def _find(store: Store, ledger: Ledger, task: str, version: int) -> Release:
    """Return a release. Raises InputError that lists which there are if it is none of them."""
    try:
        return read_release(store, task, version, ledger)
    except MissingError:
        pass
    manifest = f"{release_key(task, version)}/{MANIFEST}"
    if ledger.released(task, version) is None and manifest in store.list(manifest):
        raise _no_release(store, task, f"version {version} is not in the ledger: it is not published to its end")
    raise _no_release(store, task, f"no version {version}")


def pointed_at(store: Store, task: str, alias: str, ledger: Ledger | None = None) -> dict[str, Any] | None:
    """Return version and content digest of where an alias points, by the ledger, if it was read already."""
    ledger, entry = _decided(store, task, alias, ledger)
    if entry is None:
        return None
    return {"version": entry.version, "digest": read_release(store, task, entry.version, ledger).digest}


def _decided(store: Store, task: str, alias: str, ledger: Ledger | None = None) -> tuple[Ledger, Entry | None]:
    """Return the verified ledger, and the entry in it that decides where an alias points.

    The alias object may be behind the ledger, or not made yet: its writer was killed, or is about to. It must not say
    what no entry of the alias says. It is read before the ledger, which then has the entry that it names.

    Raises:
        InputError: the alias was changed by hand, or points at other than what was released under that version.
    """
    key = f"aliases/{task}/{alias}.json"
    try:
        said = parse_alias(store, key, store.get(key).data)
    except MissingError:
        said = None
    if ledger is None or (said and ledger.at(said["entry"]) is None):
        ledger = Ledger(store)
    entry = ledger.current(task, alias)
    named = ledger.at(said["entry"]) if said else None
    if said and (named is None or (named.task, named.alias, named.version) != (task, alias, said["version"])):
        raise InputError(
            f"{store.url}/{key}",
            f"version {said['version']} by entry {said['entry']}",
            expected="what that entry says",
            fix="the alias was changed by hand: set it with `graftline rollback`",
        )
    released = entry and ledger.released(task, entry.version)
    if entry and (released is None or released.digest != entry.digest):
        raise InputError(
            f"{store.url}/{entry_key(entry.sequence)}",
            f"{alias} at manifest {entry.digest}",
            expected=f"{released.digest if released else 'none'}, released as {task}@{entry.version}",
            fix="set the alias with `graftline rollback`",
        )
    return ledger, entry


def parse_alias(store: Store, key: str, data: bytes) -> dict[str, int]:
    try:
        value = json.loads(data)
        if type(value["version"]) is int and type(value["entry"]) is int:
            return {"version": value["version"], "entry": value["entry"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(
        f"{store.url}/{key}", "not an alias", expected="version and entry", fix="the store was changed by hand"
    )


def _no_release(store: Store, task: str, found: str) -> InputError:
    releases = list_releases(store, task)
    if not releases:
        tasks = sorted({match[1] for key in store.list("releases/") if (match := VERSION_KEY.fullmatch(key))})
        return InputError(
            f"task '{task}'",
            f"no release in {store.url}" + (f", which has {', '.join(tasks)}" if tasks else ""),
            fix=f"make one with `graftline run {task}`",
        )
    have = ", ".join(str(r.version) + (f" ({', '.join(r.aliases)})" if r.aliases else "") for r in releases)
    return InputError(f"task '{task}'", found, expected=f"one of the versions {have}")
