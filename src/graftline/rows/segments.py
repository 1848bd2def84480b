"""A task's list of segments, each segment's index and its shards: read with their digests compared, and stored."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal, TypeVar

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.environment import cpu_count
from graftline.errors import InputError
from graftline.releases.layout import check_task
from graftline.rows.shards import Layout, Sorter
from graftline.signing.envelope import open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.trusted import check_signed
from graftline.store import MissingError, Store

Kind = Literal["rows", "subjects"]
KINDS: tuple[Kind, ...] = ("rows", "subjects")
SPLITS = ("train", "val", "test", "unlabelled")
"""In the order of validate's split numbers: an entry holds the number."""
PAYLOAD_TYPE = "application/vnd.graftline.row-index+json"
_REMOTE_READERS = 32
_REPAIR = "run an erasure that was stopped again, or restore the file from a copy of the store"
_Item = TypeVar("_Item")


class DamagedError(InputError):
    """The row index contradicts itself: someone changed it, or an erasure is changing it just now."""


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


def readers_of(store: Store) -> int:
    """Return how many objects to read or write at once: on a directory, more threads wait for one another only."""
    return _REMOTE_READERS if store.local_path("rows") is None else cpu_count()


def read_list(store: Store, kind: Kind, task: str) -> tuple[list[Segment], str | None]:
    """Return a task's segments and the tag to replace the list with."""
    key = _list_key(kind, task)
    try:
        stored = store.get(key)
    except MissingError:
        return [], None
    try:
        segments = [Segment(**value | {"datasets": tuple(value["datasets"])}) for value in json.loads(stored.data)]
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
    key = index_key(kind, segment.name)
    data = store.get(key).data
    if sha256_bytes(data) != segment.index:
        raise damaged(store, key, f"sha256 {sha256_bytes(data)}", expected=segment.index)
    # The envelope as such is verify's: the list names these very bytes, and a question reads thousands of them.
    return _shards_in(store, key, segment, _payload(data))


def read_signed(store: Store, kind: Kind, task: str, segment: Segment, data: bytes) -> dict[str, Any]:
    """Return what an index says, from its bytes, as something new may be signed from it: whatever the list says.

    Raises:
        InputError: it is of another segment, or no key trusted here has signed it as an index.
    """
    key = index_key(kind, segment.name)
    payload = open_envelope(data, where=f"{store.url}/{key}").payload
    check_signed(payload, PAYLOAD_TYPE, data, load_keyring(), where=f"{store.url}/{key}", fix=_REPAIR)
    value: dict[str, Any] = json.loads(payload)
    _shards_in(store, key, segment, value)
    if (value.get("kind"), value.get("task")) != (kind, task):
        raise damaged(store, key, f"an index of {value.get('kind')} of {value.get('task')}", expected=f"of {task}")
    return value


def _payload(data: bytes) -> Any:
    try:
        return json.loads(b64decode(json.loads(data)["payload"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _shards_in(store: Store, key: str, segment: Segment, value: Any) -> dict[str, str]:
    try:
        if tuple(value["datasets"]) != segment.datasets or value["digits"] != segment.digits:
            raise ValueError("it contradicts the task's list")
        return {str(name): str(digest) for name, digest in value["shards"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(store, key, f"not an index ({error!r})") from None


def shards_of(store: Store, kind: Kind, segment: Segment) -> Iterator[tuple[str, bytes]]:
    for name, expected in sorted(read_index(store, kind, segment).items()):
        yield name, read_shard(store, kind, segment, name, expected)


def merged_name(datasets: Sequence[str], made_of: Sequence[str]) -> str:
    """Return the name of a segment made of others, whose indices have these sha256.

    Those of an erasure before and after it differ, so that what a merge left that was killed is in nobody's way.
    """
    return sha256_bytes(canonical_json({"datasets": list(datasets), "made_of": list(made_of)}))


def read_shard(store: Store, kind: Kind, segment: Segment, name: str, expected: str) -> bytes:
    key = shard_key(kind, segment.name, name, expected)
    data = store.get(key).data
    if sha256_bytes(data) != expected:
        raise damaged(store, key, f"sha256 {sha256_bytes(data)}", expected=expected)
    if len(data) % segment.layout.width:
        raise damaged(store, key, f"{len(data)} bytes", expected=f"entries of {segment.layout.width} bytes")
    return data


def store_segment(
    store: Store,
    kind: Kind,
    task: str,
    name: str,
    datasets: tuple[str, ...],
    sorter: Sorter,
    made_of: Sequence[str] = (),
) -> Segment:
    """Store the shards, then index.json.

    Args:
        made_of: the sha256 of the indices of the segments that it is made of, if it is.
    """
    layout = Layout.of(sorter.rows, several=len(datasets) > 1)
    shards: dict[str, str] = {}

    def put(shard: tuple[str, bytes]) -> tuple[str, str]:
        digest = sha256_bytes(shard[1])
        key = shard_key(kind, name, shard[0], digest)
        if not store.put_if_absent(key, shard[1]):
            raise damaged(store, key, "other bytes are stored there")
        return shard[0], digest

    with ThreadPoolExecutor(readers_of(store)) as pool:
        for group in _grouped(sorter.shards(layout), _REMOTE_READERS):
            shards.update(pool.map(put, group))
    draft = Segment(name, datasets, "", sorter.rows, layout.digits)
    key = index_key(kind, name)
    value = {
        "kind": kind,
        "task": task,
        "datasets": list(datasets),
        "rows": draft.rows,
        "digits": draft.digits,
        "width": layout.width,
        "shards": shards,
    } | ({"made_of": list(made_of)} if made_of else {})
    sealed = seal_index(value)
    if not store.put_if_absent(key, sealed):  # signatures may differ: the one that is there stands
        sealed = store.get(key).data
        there = read_signed(store, kind, task, draft, sealed)
        if there != value:
            _delete_unnamed(store, kind, name, there["shards"])
            raise damaged(store, key, "another index is stored there", fix="run the same command again")
    return replace(draft, index=sha256_bytes(sealed))


def _delete_unnamed(store: Store, kind: Kind, name: str, shards: Mapping[str, str]) -> None:
    """Delete what an index does not name: another process has stored it, and rows were erased from it since."""
    kept = {index_key(kind, name), *(shard_key(kind, name, part, digest) for part, digest in shards.items())}
    for key in store.list(f"{kind}/{name}/"):
        if key not in kept:
            store.delete(key)


def seal_index(value: Mapping[str, Any]) -> bytes:
    return seal(canonical_json(value), PAYLOAD_TYPE, load_keyring().signer())


def change_list(store: Store, kind: Kind, task: str, change: Callable[[list[Segment]], list[Segment]]) -> list[Segment]:
    """Change a task's list by compare-and-swap; return what it then is."""
    while True:
        known, tag = read_list(store, kind, task)
        changed = change(known)
        if changed == known:
            return known
        data = canonical_json([asdict(segment) for segment in changed])
        if store.replace(_list_key(kind, task), data, tag):
            return changed


def delete_segment(store: Store, kind: Kind, name: str) -> None:
    for key in store.list(f"{kind}/{name}/"):
        store.delete(key)


def unlisted(store: Store, kind: Kind) -> dict[str, list[str]]:
    """Return the keys of each segment that no task's list names."""
    found: dict[str, list[str]] = {}
    for key in store.list(f"{kind}/"):
        if not key.startswith(f"{kind}/tasks/") and key.count("/") == 2:
            found.setdefault(key.split("/")[1], []).append(key)
    with ThreadPoolExecutor(readers_of(store)) as pool:
        # After the keys: what is listed meanwhile is not taken for unlisted.
        listed = {segment.name for known in read_lists(store, kind, pool).values() for segment in known}
    return {name: keys for name, keys in found.items() if name not in listed}


def delete_superseded(store: Store, kind: Kind, task: str | None = None) -> None:
    """Delete a task's (or every task's) unlisted segments that never will be listed: their publishers were killed.

    All data sets of such a one are covered, and it was made of other segments than are listed now: its publisher's
    swap of the list fails from then on, since no index ever returns.
    """
    for name in unlisted(store, kind):
        try:
            value = _payload(store.get(index_key(kind, name)).data)
        except MissingError:
            continue
        try:
            of, datasets, made_of = value["task"], set(value["datasets"]), set(value.get("made_of") or ())
            check_task(of)
            listed = read_list(store, kind, of)[0]
        except (KeyError, TypeError, AttributeError, InputError):
            continue  # verify says so
        over = datasets <= {dataset for segment in listed for dataset in segment.datasets}
        waits = made_of and made_of <= {segment.index for segment in listed}
        if over and not waits and task in (None, of) and name not in {segment.name for segment in listed}:
            delete_segment(store, kind, name)


def shard_key(kind: Kind, segment: str, name: str, digest: str) -> str:
    return f"{kind}/{segment}/{name}-{digest[:16]}.bin"


def index_key(kind: Kind, segment: str) -> str:
    return f"{kind}/{segment}/index.json"


def damaged(store: Store, key: str, found: str, *, expected: str = "", fix: str = "") -> DamagedError:
    return DamagedError(f"{store.url}/{key}", found, expected=expected, fix=fix or _REPAIR)


def _list_key(kind: Kind, task: str) -> str:
    return f"{kind}/tasks/{task}.json"


def _grouped(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while group := list(islice(items, size)):
        yield group
