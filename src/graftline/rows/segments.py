"""A task's list of segments, each segment's index and its shards: read with their digests compared, and stored."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Literal, TypeVar

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.rows.shards import Layout, Sorter
from graftline.store import MissingError, Store

Kind = Literal["rows", "subjects"]
KINDS: tuple[Kind, ...] = ("rows", "subjects")
SPLITS = ("train", "val", "test", "unlabelled")
"""In the order of validate's split numbers: an entry holds the number."""
PAYLOAD_TYPE = "application/vnd.graftline.row-index+json"
READERS = 32
"""Concurrent reads from the store."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Segment:
    """One entry of a task's list."""

    name: str
    datasets: tuple[str, ...]
    """Content digests, in the order of the numbers that entries hold."""
    index: str
    """The sha256 of index.json."""
    rows: int
    digits: int
    """How many hexadecimal digits of a digest name its shard."""

    @property
    def layout(self) -> Layout:
        return Layout(self.digits, several=len(self.datasets) > 1)


def read_list(store: Store, kind: Kind, task: str) -> tuple[list[Segment], str | None]:
    """Return a task's segments and the tag to replace the list with."""
    key = _list_key(kind, task)
    try:
        stored = store.get(key)
    except MissingError:
        return [], None
    try:
        segments = [
            Segment(**value | {"datasets": tuple(value["datasets"])}) for value in json.loads(stored.data)
        ]
        if not all(0 <= segment.digits <= 8 and segment.datasets for segment in segments):
            raise ValueError("digits or datasets")
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(store, key, f"not a list of segments ({error!r})") from None
    return segments, stored.tag


def read_lists(store: Store, kind: Kind, pool: ThreadPoolExecutor) -> dict[str, list[Segment]]:
    keys = store.list(f"{kind}/tasks/")
    tasks = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    return dict(zip(tasks, pool.map(lambda task: read_list(store, kind, task)[0], tasks), strict=True))


def read_index(store: Store, kind: Kind, segment: Segment) -> dict[str, str]:
    """Return the sha256 of each shard by its name, after comparing index.json with the task's list."""
    key = f"{kind}/{segment.name}/index.json"
    data = store.get(key).data
    if sha256_bytes(data) != segment.index:
        raise damaged(store, key, f"sha256 {sha256_bytes(data)}", expected=segment.index)
    try:
        # The envelope as such is verify's: the list names these very bytes, and a question reads thousands of them.
        value = json.loads(b64decode(json.loads(data)["payload"]))
        if tuple(value["datasets"]) != segment.datasets or value["digits"] != segment.digits:
            raise ValueError("it contradicts the task's list")
        return {str(name): str(digest) for name, digest in value["shards"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(store, key, f"not an index ({error!r})") from None


def shards_of(store: Store, kind: Kind, segment: Segment) -> Iterator[tuple[str, bytes]]:
    for name, expected in sorted(read_index(store, kind, segment).items()):
        yield name, read_shard(store, kind, segment, name, expected)


def read_shard(store: Store, kind: Kind, segment: Segment, name: str, expected: str) -> bytes:
    key = shard_key(kind, segment.name, name, expected)
    data = store.get(key).data
    if sha256_bytes(data) != expected:
        raise damaged(store, key, f"sha256 {sha256_bytes(data)}", expected=expected)
    if len(data) % segment.layout.width:
        raise damaged(store, key, f"{len(data)} bytes", expected=f"entries of {segment.layout.width} bytes")
    return data


def store_segment(
    store: Store, kind: Kind, task: str, name: str, datasets: tuple[str, ...], sorter: Sorter
) -> Segment:
    """Store the shards, then index.json."""
    layout = Layout.of(sorter.rows, several=len(datasets) > 1)
    shards: dict[str, str] = {}

    def put(shard: tuple[str, bytes]) -> tuple[str, str]:
        digest = sha256_bytes(shard[1])
        key = shard_key(kind, name, shard[0], digest)
        if not store.put_if_absent(key, shard[1]):
            raise damaged(store, key, "other bytes are stored there")
        return shard[0], digest

    with ThreadPoolExecutor(READERS) as pool:
        for group in _grouped(sorter.shards(layout), READERS):
            shards.update(pool.map(put, group))
    draft = Segment(name, datasets, "", sorter.rows, layout.digits)
    key = f"{kind}/{name}/index.json"
    sealed = seal_index(kind, task, draft, shards)
    if not store.put_if_absent(
        key, sealed
    ):  # signatures differ from try to try: the one that is there stands
        sealed = store.get(key).data
    segment = replace(draft, index=sha256_bytes(sealed))
    if read_index(store, kind, segment) != shards:
        raise damaged(store, key, "another index is stored there")
    return segment


def seal_index(kind: Kind, task: str, segment: Segment, shards: dict[str, str]) -> bytes:
    from graftline.signing.envelope import seal
    from graftline.signing.keys import load_keyring

    value = {
        "kind": kind, "task": task, "datasets": list(segment.datasets), "rows": segment.rows,
        "digits": segment.digits, "width": segment.layout.width, "shards": shards,
    }  # fmt: skip
    return seal(canonical_json(value), PAYLOAD_TYPE, load_keyring().signer())


def change_list(
    store: Store, kind: Kind, task: str, change: Callable[[list[Segment]], list[Segment]]
) -> None:
    while True:
        known, tag = read_list(store, kind, task)
        changed = change(known)
        if changed == known:
            return
        data = canonical_json([asdict(segment) for segment in changed])
        if store.replace(_list_key(kind, task), data, tag):
            return


def delete_segment(store: Store, kind: Kind, name: str) -> None:
    for key in store.list(f"{kind}/{name}/"):
        store.delete(key)


def shard_key(kind: Kind, segment: str, name: str, digest: str) -> str:
    return f"{kind}/{segment}/{name}-{digest[:16]}.bin"


def damaged(store: Store, key: str, found: str, *, expected: str = "") -> InputError:
    return InputError(
        f"{store.url}/{key}",
        found,
        expected=expected,
        fix="delete rows/ and subjects/ and build the index again",
    )


def _list_key(kind: Kind, task: str) -> str:
    return f"{kind}/tasks/{task}.json"


def _grouped(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while group := list(islice(items, size)):
        yield group
