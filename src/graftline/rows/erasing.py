"""Take rows out of the row index, and say which shards hold them, before and after."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.rows.finding import RowHit
from graftline.rows.segments import (
    DamagedError,
    Kind,
    Segment,
    change_list,
    damaged,
    delete_segment,
    delete_superseded,
    index_key,
    read_index,
    read_list,
    read_lists,
    read_shard,
    read_signed,
    readers_of,
    seal_index,
    shard_key,
    shards_of,
    unlisted,
)
from graftline.rows.shards import DIGEST_BYTES, WHOLE, decode, search, without
from graftline.signing.envelope import open_envelope
from graftline.store import MissingError, Store

_WAITS = (0.0, 0.05, 0.2, 0.5)
"""Seconds before each try."""


@dataclass(frozen=True)
class Rewritten:
    """A shard out of which entries were taken."""

    key: str
    """Of the old shard."""
    name: str
    """The shard's."""
    before: str
    """sha256, hex."""
    after: str
    entries: int


def remove(store: Store, kind: Kind, *digests: bytes) -> list[Rewritten]:
    """Overwrite the entries of these digests in every segment; return the shards that were changed.

    The other entries of a shard stay as they are. A shard is stored before the index that names it, and the task's
    list last, so that doing it again after a crash ends in the same state. A merge that runs meanwhile may list what
    it has read before: so it is done again until no shard holds one. What killed publishers left goes, too.

    Raises:
        InputError: an index is damaged or not signed by a key trusted here, or others keep changing it.
    """
    wanted = [digest[:DIGEST_BYTES] for digest in digests]
    changes: list[Rewritten] = []
    last = InputError(f"{store.url}/{kind}", "it keeps changing", fix="run the same command again")
    for wait in _WAITS:
        time.sleep(wait)
        try:
            with ThreadPoolExecutor(readers_of(store)) as pool:
                lists = read_lists(store, kind, pool)
            for task, segments in lists.items():
                for segment in segments:
                    changes += _remove(store, kind, task, segment, wanted)
            if not any(shards_with(store, kind, digest) for digest in wanted):
                _delete_unlisted(store, kind, wanted)
                return changes
        except MissingError as error:
            last = damaged(store, error.key, "missing")
        except DamagedError as error:
            last = error
    raise last


def shards_with(store: Store, kind: Kind, digest: bytes) -> dict[str, str]:
    """Return the sha256 of each shard that holds an entry of `digest`, by its place: `rows/<segment>/<hex>`."""
    digest, found = digest[:DIGEST_BYTES], {}
    with ThreadPoolExecutor(readers_of(store)) as pool:
        lists = read_lists(store, kind, pool)
    for segment in (segment for segments in lists.values() for segment in segments):
        name = segment.layout.shard_of(digest)
        sha256 = read_index(store, kind, segment).get(name)
        if sha256 and search(read_shard(store, kind, segment, name, sha256), segment.layout, digest):
            found[f"{kind}/{segment.name}/{name}"] = sha256
    return found


def digests_at(store: Store, hits: Collection[RowHit]) -> set[bytes]:
    """Return the first 16 bytes of the digest of the row at each place. Reads all shards of these datasets."""
    found: set[bytes] = set()
    for task in {hit.task for hit in hits}:
        for segment in read_list(store, "rows", task)[0]:
            numbers = {
                (segment.datasets.index(hit.dataset), hit.row) for hit in hits if hit.dataset in segment.datasets
            }
            if not numbers:
                continue
            rows = np.array(sorted({row for _, row in numbers}))
            for name, data in shards_of(store, "rows", segment):
                entries = decode(name, data, segment.layout)
                near = entries[np.isin(entries["value"] >> 2, rows)]
                found |= {e["digest"].tobytes() for e in near if (int(e["of"]), int(e["value"]) >> 2) in numbers}
    return found


def shard_now(store: Store, place: str) -> str | None:
    """Return the sha256 of the shard at a place that `shards_with` gave; None if its segment was merged away."""
    folder, _, name = place.rpartition("/")
    try:
        index = store.get(f"{folder}/index.json").data
    except MissingError:
        return None
    shards: dict[str, str] = json.loads(open_envelope(index).payload)["shards"]
    return shards.get(name)


def _remove(store: Store, kind: Kind, task: str, segment: Segment, digests: Sequence[bytes]) -> list[Rewritten]:
    """Store the new shards, then the index that names them, then the list; delete the old shards last."""
    key = index_key(kind, segment.name)
    index = store.get(key)
    value = read_signed(store, kind, task, segment, index.data)
    changes = _new_shards(store, kind, segment, value["shards"], digests)
    if changes:
        shards = value["shards"] | {change.name: change.after for change in changes}
        if not store.replace(key, seal_index(value | {"shards": shards}), index.tag):
            _forget(store, kind, segment, changes)
            raise damaged(store, key, "changed meanwhile", fix="run the same command again")
    change_list(store, kind, task, partial(_as_stored, store, kind, task, segment.name))
    _delete_old(store, kind, segment, digests)
    return changes


def _new_shards(
    store: Store, kind: Kind, segment: Segment, shards: Mapping[str, str], digests: Sequence[bytes]
) -> list[Rewritten]:
    """Store each shard that holds one of the digests without them; return which these are."""
    changes = []
    by_shard: defaultdict[str, list[bytes]] = defaultdict(list)
    for digest in digests:
        by_shard[segment.layout.shard_of(digest)].append(digest)
    for name in sorted(by_shard.keys() & shards.keys()):
        data, entries = read_shard(store, kind, segment, name, shards[name]), 0
        for digest in by_shard[name]:
            data, count = without(data, segment.layout, digest)
            entries += count
        if entries:
            after = sha256_bytes(data)
            store.put_if_absent(shard_key(kind, segment.name, name, after), data)
            key = shard_key(kind, segment.name, name, shards[name])
            changes.append(Rewritten(key, name, shards[name], after, entries))
    return changes


def _forget(store: Store, kind: Kind, segment: Segment, changes: Sequence[Rewritten]) -> None:
    """Delete shards that no index will name: that of their segment was changed, or deleted, meanwhile."""
    try:
        data = store.get(index_key(kind, segment.name)).data
    except MissingError:
        data = b""
    for change in changes:
        if change.after.encode() not in b64decode(json.loads(data)["payload"] if data else b""):
            store.delete(shard_key(kind, segment.name, change.name, change.after))


def _as_stored(store: Store, kind: Kind, task: str, name: str, known: list[Segment]) -> list[Segment]:
    """Return the list with the segment's index that is stored: a removal that was killed has not told the list."""

    def now(segment: Segment) -> Segment:
        data = store.get(index_key(kind, name)).data
        read_signed(store, kind, task, segment, data)
        return replace(segment, index=sha256_bytes(data))

    return [now(segment) if segment.name == name else segment for segment in known]


def _delete_old(store: Store, kind: Kind, segment: Segment, digests: Sequence[bytes]) -> None:
    """Delete the segment's shards that hold one of the digests: none that the index names does."""
    for key in store.list(f"{kind}/{segment.name}/"):
        name = key.rpartition("/")[2].partition("-")[0]
        of = [digest for digest in digests if segment.layout.shard_of(digest) == name]
        if of and any(search(data, segment.layout, digest) for data in _content(store, key) for digest in of):
            store.delete(key)


def _delete_unlisted(store: Store, kind: Kind, digests: Sequence[bytes]) -> None:
    """Delete what killed publishers left, as far as it is over or holds one of the digests.

    No merge that still runs will list such a one: what it was made of has changed. A publisher that still runs looks
    whether its segment is there after it has listed it.
    """
    delete_superseded(store, kind)
    for name, keys in unlisted(store, kind).items():
        shards = [key for key in keys if key.endswith(".bin")]
        if any(_may_hold(key, data, digests) for key in shards for data in _content(store, key)):
            delete_segment(store, kind, name)


def _may_hold(key: str, data: bytes, digests: Sequence[bytes]) -> bool:
    """Return whether a shard of unknown layout holds a digest: its name gives at most the first 4 bytes."""
    prefix = key.rpartition("/")[2].partition("-")[0]
    start = "" if prefix == WHOLE else prefix
    return any(d.hex().startswith(start) and d[len(start) // 2 :] in data for d in digests)


def _content(store: Store, key: str) -> list[bytes]:
    """Return the content of a file; nothing of one that was deleted meanwhile."""
    try:
        return [store.get(key).data]
    except MissingError:
        return []
