"""Bundles: several files in a store under one name, there whole or not at all, and removed when they have served.

    <prefix>/<name>.json        written last: its files, each with size, sha256 and parts; and its own sha256
    <prefix>/<name>-<sha256>    a part of a file, named by its content

Two writers of one name never mix: parts are named by their content, and the first manifest stands. For what moves a
run from one machine to another; what is released has its own form (`graftline.releases`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError, InputError, brief
from graftline.store import Store

_MANIFEST_BYTES = 1 << 20
"""Most of a manifest of somebody who is not trusted."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
PART_BYTES = 64 << 20
"""Size of a part: one takes this much memory, and a file may be larger than the 5 GiB of one S3 object."""


class DamagedError(InputError):
    """What the store holds is not what was put into it."""


class StoppedError(GraftlineError):
    """The caller asked to stop between two parts; no manifest was written."""


@dataclass(frozen=True)
class Source:
    """A file to put into a bundle."""

    path: Path
    size: int | None = None
    """How many of its first bytes; None for all. A log that still grows has a first part that does not change."""


def put_bundle(
    store: Store, prefix: str, name: str, files: Mapping[str, Source], *, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Store `files`, by their names in the bundle; one of that name that is there already stands.

    Args:
        stopped: asked before each part and before the manifest.

    Raises:
        StoppedError: `stopped` said so.
        GraftlineError: the store cannot be reached, or holds other bytes under a part's name.
        OSError: a file cannot be read, or is shorter than its source says.
    """
    listing = {}
    for file, source in files.items():
        whole, size, parts = sha256(), 0, []
        for part in _parts(source):
            if stopped():
                raise StoppedError(f"{name}: stopped")
            digest = sha256_bytes(part)
            if not store.put_if_absent(f"{prefix}/{name}-{digest}", part):
                raise GraftlineError(f"store {store.url}: {prefix}/{name}-{digest} holds other bytes")
            whole.update(part)
            size += len(part)
            parts.append(digest)
        if source.size is not None and size != source.size:
            raise OSError(0, f"has {size} bytes, not {source.size}", str(source.path))
        listing[file] = {"size": size, "sha256": whole.hexdigest(), "parts": parts}
    if stopped():
        raise StoppedError(f"{name}: stopped")
    store.put_if_absent(f"{prefix}/{name}.json", _sealed({"name": name, "files": listing}))


def list_bundles(store: Store, prefix: str) -> list[str]:
    """Return the names of the whole bundles under `prefix`, sorted."""
    keys = (key.removeprefix(f"{prefix}/") for key in store.list(f"{prefix}/"))
    return [key.removesuffix(".json") for key in keys if key.endswith(".json") and "/" not in key]


def get_bundle(
    store: Store, prefix: str, name: str, folder: Path, *, most: int | None = None, only: Collection[str] | None = None
) -> None:
    """Write the bundle's files into `folder`, each verified.

    Args:
        most: bytes that it may have; None for any. For the bundle of somebody who is not trusted with the disk.
        only: the files that it may hold; None for any.

    Raises:
        MissingError: there is no such bundle, or a part is gone.
        DamagedError: the manifest, a part or a file is not what it was, a file would lie outside the folder or is none
            of `only`, or there are more bytes than `most`.
    """
    written = 0
    where = f"{store.url}/{prefix}/{name}"
    if most is not None and store.stat(f"{prefix}/{name}.json").size > _MANIFEST_BYTES:
        raise DamagedError(where, f"a manifest of more than {_MANIFEST_BYTES} bytes")
    for file, facts in _opened(store.get(f"{prefix}/{name}.json").data, where, name).items():
        if only is not None and file not in only:
            raise DamagedError(
                where, f"a file named {brief(ascii(file))}", expected=f"one of {', '.join(sorted(only))}"
            )
        path = folder / _checked_path(file, where)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = sha256()
        with path.open("xb") as out:
            for digest in facts["parts"]:
                written += store.stat(f"{prefix}/{name}-{digest}").size if most is not None else 0
                if most is not None and written > most:
                    raise DamagedError(where, f"more than {most} bytes", expected="as many as it may have at most")
                part = store.get(f"{prefix}/{name}-{digest}").data
                if sha256_bytes(part) != digest:
                    raise DamagedError(f"{where}-{digest}", "content differs from its name")
                whole.update(part)
                out.write(part)
        if whole.hexdigest() != facts["sha256"] or path.stat().st_size != facts["size"]:
            raise DamagedError(f"{where}: {file}", "content differs from its manifest")


def delete_bundle(store: Store, prefix: str, name: str) -> None:
    """Remove a bundle, the manifest first: what is left of it when this is interrupted is no bundle."""
    store.delete(f"{prefix}/{name}.json")
    for key in store.list(f"{prefix}/{name}-"):
        store.delete(key)


def delete_all(store: Store, prefix: str) -> None:
    """Remove everything under `prefix`, manifests first."""
    for key in sorted(store.list(f"{prefix}/"), key=lambda key: not key.endswith(".json")):
        store.delete(key)


def _parts(source: Source) -> Iterator[bytes]:
    left = source.size
    with source.path.open("rb") as file:
        while part := file.read(PART_BYTES if left is None else min(PART_BYTES, left)):
            yield part
            left = None if left is None else left - len(part)


def _sealed(content: dict[str, Any]) -> bytes:
    return canonical_json({"content": content, "sha256": sha256_bytes(canonical_json(content))})


def _opened(data: bytes, where: str, name: str) -> dict[str, Any]:
    """Return a manifest's files. Raises DamagedError."""
    try:
        sealed = json.loads(data)
        content = sealed["content"]
        if sha256_bytes(canonical_json(content)) != sealed["sha256"] or content["name"] != name:
            raise DamagedError(where, "the manifest differs from its sha256")
        files: dict[str, Any] = content["files"]
        for facts in files.values():
            if type(facts["size"]) is not int or not all(_DIGEST.fullmatch(part) for part in facts["parts"]):
                raise ValueError("no size, or parts that are not named by digests")
            facts["sha256"]  # or a KeyError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(where, f"not a manifest ({brief(repr(error))})") from None
    return files


def _checked_path(file: str, where: str) -> PurePosixPath:
    path = PurePosixPath(file)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise DamagedError(where, f"a file named {file!r}", expected="a path inside the folder")
    return path
