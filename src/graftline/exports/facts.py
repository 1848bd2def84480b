"""What an export is written from: one release, its manifest and every record of its chain, read from the store.

Each byte is compared with the digest that names it before anything parses it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import InputError
from graftline.records import PREDICATE, STATEMENT, Record
from graftline.releases.catalogue import Release
from graftline.releases.layout import MANIFEST, manifest_files, read_manifest, release_key
from graftline.store import MissingError, Store

MAX_STEPS = 10_000
"""Records in one release's chain: a longer one is a mistake, or a store that wants to keep its reader busy."""
CODE, LOCK, IMAGE = "code", "requirements.lock", "image"
_CHANGED = "the store was changed: find out with `graftline verify`"


@dataclass(frozen=True)
class Step:
    """One record of the chain, as it is stored."""

    record: Record
    data: bytes
    envelope: bytes | None
    """The signed envelope; None if the store has none."""

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The descriptors of what went in as data: neither code, nor image, nor lock."""
        return [d for d in self.record.dependencies if d["name"] not in (CODE, LOCK, IMAGE)]

    def digest_of(self, name: str) -> str | None:
        """Return the digest of the dependency `name`, such as the commit of `code`."""
        found = (d["digest"] for d in self.record.dependencies if d["name"] == name)
        return next((str(next(iter(digest.values()))) for digest in found if digest), None)


@dataclass(frozen=True)
class Facts:
    """A release and where it came from."""

    store: Store
    release: Release
    manifest: dict[str, Any]
    manifest_data: bytes
    steps: tuple[Step, ...]
    """The whole chain; what goes into a step stands before it."""

    @cached_property
    def named(self) -> dict[str, Step]:
        """The release's own records by name: dataset, trunk, model, evaluation."""
        by_digest = {step.record.sha256: step for step in self.steps}
        return {name: by_digest[digest] for name, digest in self.manifest["records"].items()}

    @cached_property
    def files(self) -> list[FileDigest]:
        """The release's files, sorted by path."""
        return sorted(manifest_files(self.manifest))

    def read(self, path: str) -> bytes | None:
        """Return a file of the release, compared with the manifest; None if the release has no such file.

        Raises:
            InputError: its bytes are others, or it is gone.
        """
        listed = next((file for file in self.files if file.path == path), None)
        if listed is None:
            return None
        key = f"{release_key(self.release.task, self.release.version)}/{path}"
        return _checked(self.store, key, listed.sha256)

    def json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file of the release; {} if there is no such file. Raises InputError."""
        data = self.read(path)
        try:
            value = {} if data is None else json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{self.release.path}/{path}", "not a JSON object", fix=_CHANGED)
        return value

    def lock(self) -> bytes | None:
        """Return the lock that the model's environment was installed from; None if the store does not have it."""
        model = self.named.get("model") or (self.steps[-1] if self.steps else None)
        digest = model.digest_of(LOCK) if model else None
        key = f"locks/{digest}.txt"
        return _checked(self.store, key, digest) if digest and self.store.list(key) else None


def read_facts(store: Store, release: Release) -> Facts:
    """Return the release's manifest and the chain of its records.

    Raises:
        InputError: a record of the chain is missing, or an object is not what its digest says.
    """
    key = f"{release_key(release.task, release.version)}/{MANIFEST}"
    data = _checked(store, key, release.manifest)
    manifest = read_manifest(store, release.task, release.version, expected=release.manifest)
    listed = {
        name: _digest(digest, f"{release.path}/{MANIFEST}") for name, digest in manifest["records"].items()
    }
    held = {file.sha256: file.path for file in manifest_files(manifest) if file.path.startswith("records/")}

    def read(digest: str) -> bytes:
        inside = held.get(digest)
        place = (
            f"{release_key(release.task, release.version)}/{inside}" if inside else f"records/{digest}.json"
        )
        return _checked(store, place, digest)

    steps = tuple(_chain(store, list(listed.values()), read))
    return Facts(store, release, manifest | {"records": listed}, data, steps)


def parse_record(data: bytes, where: object) -> Record:
    """Return the record in `data`, whose content was not looked at. Raises InputError if it is none."""
    try:
        statement = json.loads(data)
        record = Record(statement, sha256_bytes(data))
        kinds = (statement["_type"], statement["predicateType"])
        names = [d["name"] for d in record.dependencies]
        digests = [v for d in record.dependencies for v in d["digest"].values()]
        texts = [record.component, record.task, record.name, record.content, *names, *digests]
        whole = kinds == (STATEMENT, PREDICATE) and all(isinstance(text, str) for text in texts)
        mappings = [record.parameters, record.metrics, record.environment]
        mappings += [d.get("annotations", {}) for d in record.dependencies]
        whole = (
            whole
            and all(isinstance(m, dict) for m in mappings)
            and digest_files(record.files) == record.content
        )
        whole = whole and canonical_json(statement) == data  # and so no text that cannot be written again
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(where, f"not a record ({error!r})", fix=_CHANGED) from None
    if not whole:
        raise InputError(where, "not a record, or one that contradicts itself", fix=_CHANGED)
    return record


def links(record: Record) -> Iterator[str]:
    """Yield the digests of the records that this one names."""
    for dependency in record.dependencies:
        digest = dependency.get("annotations", {}).get("record")
        if digest is not None:
            yield _digest(digest, f"record {record.sha256}")


def _chain(store: Store, roots: list[str], read: Callable[[str], bytes]) -> Iterator[Step]:
    """Yield the records that `roots` come from, then themselves: each once, after all that it names."""
    done: set[str] = set()
    known: dict[str, Step] = {}
    stack = [(digest, False) for digest in reversed(roots)]
    while stack:
        digest, whole = stack.pop()
        if digest in done:
            continue
        if whole:  # all that it names was yielded
            done.add(digest)
            yield known[digest]
            continue
        if digest not in known:
            data = read(digest)
            known[digest] = Step(parse_record(data, f"record {digest}"), data, _envelope(store, digest))
        if len(known) > MAX_STEPS:
            raise InputError(f"record {roots[0]}", f"over {MAX_STEPS} records in its chain", fix=_CHANGED)
        stack.append((digest, True))
        stack += [(before, False) for before in links(known[digest].record) if before not in known]


def _envelope(store: Store, digest: str) -> bytes | None:
    """Return the first envelope whose payload is the record; who signed it is not judged here."""
    from graftline.signing.envelope import open_envelope

    for key in store.list(f"signatures/{digest}/"):
        data = store.get(key).data
        if sha256_bytes(open_envelope(data, where=f"{store.url}/{key}").payload) == digest:
            return data
    return None


def _checked(store: Store, key: str, digest: str) -> bytes:
    """Return what is stored under `key`. Raises InputError if it is gone or its sha256 is another."""
    try:
        data = store.get(key).data
    except MissingError:
        raise InputError(f"{store.url}/{key}", "missing", expected=f"sha256 {digest}", fix=_CHANGED) from None
    if sha256_bytes(data) != digest:
        raise InputError(f"{store.url}/{key}", f"sha256 {sha256_bytes(data)}", expected=digest, fix=_CHANGED)
    return data


def _digest(value: object, where: object) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InputError(where, f"{str(value)[:80]!r} is no sha256", fix=_CHANGED)
    return value
