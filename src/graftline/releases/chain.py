"""A release's chain: its manifest, and the record of every step that it came from, read from the store.

Each byte is compared with the digest that names it before anything parses it. A release holds its own copy of its
parts' records; those behind them lie under `records/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.records.model import Record, parse_record
from graftline.releases.catalogue import Release
from graftline.releases.layout import MANIFEST, RECORDS, read_manifest, release_key
from graftline.store import MissingError, Store

MAX_RECORDS = 10_000
"""In one release's chain: a longer one is a mistake, or a store that wants to keep its reader busy."""
CHANGED = "the store was changed: find out with `graftline verify`"


@dataclass(frozen=True)
class ReleaseChain:
    """A release and where it came from."""

    release: Release
    manifest: Mapping[str, Any]
    records: Mapping[str, Record]
    """By sha256, the whole chain; what went into a step stands before it."""
    data: Mapping[str, bytes]
    """The bytes of each record, by sha256."""

    @property
    def parts(self) -> dict[str, Record]:
        """The records that the release names (dataset, trunk, model, evaluation), in the order of the chain."""
        names: dict[str, list[str]] = {}
        for name, digest in self.manifest["records"].items():
            names.setdefault(digest, []).append(name)
        return {name: record for digest, record in self.records.items() for name in names.get(digest, ())}


def read_release_chain(store: Store, release: Release) -> ReleaseChain:
    """Return the chain of a release.

    Raises:
        InputError: an object of it is missing, is not what its digest says, or is no record.
    """
    manifest = read_manifest(store, release.task, release.version, expected=release.manifest)
    folder = release_key(release.task, release.version)
    held = {file["sha256"]: file["path"] for file in manifest["files"] if file["path"].startswith(RECORDS)}
    try:
        roots = [str(digest) for digest in manifest["records"].values()]
    except (KeyError, AttributeError) as error:
        raise InputError(f"{release.path}/{MANIFEST}", f"it names no records ({error!r})", fix=CHANGED) from None
    records: dict[str, Record] = {}
    data: dict[str, bytes] = {}
    read: dict[str, Record] = {}
    waiting = [(digest, False) for digest in reversed(roots)]
    while waiting:
        digest, behind_are_in = waiting.pop()
        if digest in records:
            continue
        if behind_are_in:
            records[digest] = read[digest]
            continue
        if digest not in read:
            key = f"{folder}/{held[digest]}" if digest in held else f"records/{digest}.json"
            data[digest] = read_checked(store, key, digest)
            read[digest] = _parsed(data[digest], f"{store.url}/{key}")
        if len(read) > MAX_RECORDS:
            raise InputError(release.name, f"over {MAX_RECORDS} records in its chain", fix=CHANGED)
        waiting.append((digest, True))
        behind = [given.record for given in read[digest].inputs if given.record]
        waiting += [(before, False) for before in behind if before not in read]
    return ReleaseChain(release, manifest, records, data)


def _parsed(data: bytes, where: str) -> Record:
    record = parse_record(data, where, fix=CHANGED)
    try:
        whole = canonical_json(json.loads(data)) == data
    except ValueError:  # text that cannot be written again
        whole = False
    if not whole:
        raise InputError(where, "not in canonical form (RFC 8785)", fix=CHANGED)
    return record


def read_checked(store: Store, key: str, digest: str) -> bytes:
    """Return what is stored under `key`. Raises InputError if it is gone or its sha256 is another."""
    try:
        data = store.get(key).data
    except MissingError:
        raise InputError(f"{store.url}/{key}", "missing", expected=f"sha256 {digest}", fix=CHANGED) from None
    if sha256_bytes(data) != digest:
        raise InputError(f"{store.url}/{key}", f"sha256 {sha256_bytes(data)}", expected=digest, fix=CHANGED)
    return data
