"""Move an alias: the ledger decides where it points, the alias object follows."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from graftline.canonical import canonical_json
from graftline.errors import GraftlineError
from graftline.ledger.entries import Entry, Fact
from graftline.ledger.log import Ledger
from graftline.releases.catalogue import Release, parse_alias, resolve
from graftline.releases.layout import CHAMPION, check_alias, read_manifest
from graftline.signing.keyring import load_keyring
from graftline.signing.rotation import open_ledger
from graftline.store import MissingError, Store


def rollback(store: Store, task: str, version: int, alias: str = CHAMPION) -> tuple[Release, bool]:
    """Point `alias` at `version` again; return the release, and False if the alias was there already.

    Nothing is deleted; the ledger gets one entry.

    Raises:
        InputError: there is no such release; the line lists which there are.
    """
    check_alias(alias)
    release = resolve(store, f"{task}@{version}")
    identity = f"{uuid.uuid4().hex}:rollback:{task}:{alias}"

    def decide(ledger: Ledger) -> Fact | None:
        current = ledger.current(task, alias)
        if current is not None and current.version == version and current.id != identity:
            return None
        return Fact("rollback", task, version, release.manifest, identity, alias)

    ledger = open_ledger(store, load_keyring())
    entry = ledger.append(decide)
    follow(store, ledger, task, alias)
    return resolve(store, f"{task}@{version}"), entry is not None


def promote(store: Store, ledger: Ledger, fact: Fact, compared_with: Mapping[str, Any] | None) -> Entry | None:
    """Enter a promotion if it may be; return the entry that decided before it.

    `champion` moves only if it is the release that the new one was compared with (by version and content),
    or is nowhere and there was none to compare with: nothing is put over a release that it was not measured
    against. Another alias moves unless it points at a later version. One that points there already stays.
    """

    def decide(ledger: Ledger) -> Fact | None:
        current = ledger.current(fact.task, str(fact.alias))
        if current is not None and current.version == fact.version and not ledger.find(fact.id):
            return None
        if fact.alias == CHAMPION:
            may = _named(store, current) == _version_and_digest(compared_with)
        else:
            may = current is None or current.version < fact.version
        return fact if may or ledger.find(fact.id) else None

    entry = ledger.append(decide)
    before = ledger.entries[: entry.sequence - 1] if entry else ledger.entries
    return next((e for e in reversed(before) if (e.task, e.alias) == (fact.task, fact.alias)), None)


def _named(store: Store, entry: Entry | None) -> tuple[int, str] | None:
    """Return version and content digest of the release that an entry points at, by the manifest that it names."""
    if entry is None:
        return None
    return entry.version, read_manifest(store, entry.task, entry.version, expected=entry.digest)["content"]


def _version_and_digest(release: Mapping[str, Any] | None) -> tuple[int, str] | None:
    return None if release is None else (release["version"], release["digest"])


def follow(store: Store, ledger: Ledger, task: str, alias: str) -> Entry | None:
    """Roll the alias object forward to the ledger's last word on it; return that entry."""
    entry = ledger.current(task, alias)
    if entry is None:
        return None
    key, data = (f"aliases/{task}/{alias}.json", canonical_json({"version": entry.version, "entry": entry.sequence}))
    seen: list[str | None] = []
    # Whoever loses this race was overtaken by another change; a refusal without one is the server's fault.
    while len(seen) < 5 or len(set(seen[-5:])) > 1:
        try:
            stored = store.get(key)
        except MissingError:
            seen.append(None)
            if store.replace(key, data, None):
                return entry
            continue
        seen.append(stored.tag)
        later = parse_alias(store, key, stored.data)["entry"] > entry.sequence
        if later or stored.data == data or store.replace(key, data, stored.tag):
            return entry
    raise GraftlineError(f"{store.url}/{key}: the store refuses to replace it although nothing changed it meanwhile")
