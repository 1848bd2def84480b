"""Take rows out of the row index, and say which shards hold them, before and after."""

from __future__ import annotations

import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.rows.finding import RowHit
from graftline.rows.segments import (
    READERS,
    Kind,
    Segment,
    change_list,
    read_index,
    read_list,
    read_lists,
    read_shard,
    seal_index,
    shard_key,
    shards_of,
)
from graftline.rows.shards import DIGEST_BYTES, decode, search, without
from graftline.store import MissingError, Store


@dataclass(frozen=True)
class Rewritten:
    """A shard out of which entries were taken."""

    key: str
    before: str
    """sha256, hex."""
    after: str
    entries: int


def remove(store: Store, kind: Kind, digest: bytes) -> list[Rewritten]:
    """Overwrite the entries of `digest` in every segment; return the shards that were changed.

    The other entries of a shard stay as they are. A shard is stored before the index that names it, and the task's
    list last, so that doing it again after a crash ends in the same state.
    """
    with ThreadPoolExecutor(READERS) as pool:
        lists = read_lists(store, kind, pool)
    return [
        change
        for task, segments in lists.items()
        for segment in segments
        for change in _remove(store, kind, task, segment, digest[:DIGEST_BYTES])
    ]


def shards_with(store: Store, kind: Kind, digest: bytes) -> dict[str, str]:
    """Return the sha256 of each shard that holds an entry of `digest`, by its place: `rows/<segment>/<hex>`."""
    digest, found = digest[:DIGEST_BYTES], {}
    with ThreadPoolExecutor(READERS) as pool:
        lists = read_lists(store, kind, pool)
    for segment in (segment for segments in lists.values() for segment in segments):
        name = segment.layout.shard_of(digest)
        sha256 = read_index(store, kind, segment).get(name)
        if sha256 and search(read_shard(store, kind, segment, name, sha256), segment.layout, digest):
            found[f"{kind}/{segment.name}/{name}"] = sha256
    return found


def digests_at(store: Store, hits: Collection[RowHit]) -> set[bytes]:
    """Return the first 16 bytes of the digest of the row at each place. Reads all shards of these datasets."""
    import numpy as np

    found: set[bytes] = set()
    for task in {hit.task for hit in hits}:
        for segment in read_list(store, "rows", task)[0]:
            numbers = {
                (segment.datasets.index(hit.dataset), hit.row)
                for hit in hits
                if hit.dataset in segment.datasets
            }
            if not numbers:
                continue
            rows = np.array(sorted({row for _, row in numbers}))
            for name, data in shards_of(store, "rows", segment):
                entries = decode(name, data, segment.layout)
                near = entries[np.isin(entries["value"] >> 2, rows)]
                found |= {
                    e["digest"].tobytes() for e in near if (int(e["of"]), int(e["value"]) >> 2) in numbers
                }
    return found


def shard_now(store: Store, place: str) -> str | None:
    """Return the sha256 of the shard at a place that `shards_with` gave; None if its segment was merged away."""
    from graftline.signing.envelope import open_envelope

    folder, _, name = place.rpartition("/")
    try:
        index = store.get(f"{folder}/index.json").data
    except MissingError:
        return None
    shards: dict[str, str] = json.loads(open_envelope(index).payload)["shards"]
    return shards.get(name)


def _remove(store: Store, kind: Kind, task: str, segment: Segment, digest: bytes) -> list[Rewritten]:
    """Store the new shard, then the index that names it, then the list; delete the old shard last."""
    name, index_key = segment.layout.shard_of(digest), f"{kind}/{segment.name}/index.json"
    index = store.get(index_key)
    shards = read_index(store, kind, _as_stored(segment, index.data))
    if name not in shards:
        return []
    before, changes, sealed = shards[name], [], index.data
    old = read_shard(store, kind, segment, name, before)
    data, count = without(old, segment.layout, digest)
    after = sha256_bytes(data)
    if count:
        store.put_if_absent(shard_key(kind, segment.name, name, after), data)
        sealed = seal_index(kind, task, segment, shards | {name: after})
        if not store.replace(index_key, sealed, index.tag):
            raise InputError(
                f"{store.url}/{index_key}", "changed meanwhile", fix="run the same command again"
            )
        changes = [Rewritten(shard_key(kind, segment.name, name, before), before, after, count)]
    changed = replace(segment, index=sha256_bytes(sealed))
    change_list(store, kind, task, lambda known: [changed if s.name == segment.name else s for s in known])
    for key in store.list(f"{kind}/{segment.name}/{name}-"):
        if key != shard_key(kind, segment.name, name, after):
            store.delete(key)
    return changes


def _as_stored(segment: Segment, data: bytes) -> Segment:
    """Return the segment with the index that is stored: a removal that was killed has not told the list yet.

    Raises:
        InputError: it is another than the list says, and none of the keys trusted here has signed it.
    """
    from graftline.signing.envelope import open_envelope, signers
    from graftline.signing.keys import load_keyring

    if sha256_bytes(data) == segment.index or signers(open_envelope(data), load_keyring().public):
        return replace(segment, index=sha256_bytes(data))
    return segment
