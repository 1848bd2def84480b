"""What an export is written from: one release, its manifest and every record of its chain, read from the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graftline.digests import FileDigest, sha256_bytes
from graftline.errors import InputError
from graftline.records.model import Record
from graftline.releases.catalogue import Release
from graftline.releases.chain import CHANGED, read_checked, read_release_chain
from graftline.releases.layout import MANIFEST, manifest_files, release_key
from graftline.signing.envelope import open_envelope
from graftline.store import Store


@dataclass(frozen=True)
class StoredRecord:
    """One record of the chain, as it is stored."""

    record: Record
    data: bytes
    envelope: bytes | None
    """The signed envelope; None if the store has none."""


@dataclass(frozen=True)
class Facts:
    """A release and where it came from."""

    store: Store
    release: Release
    manifest: dict[str, Any]
    manifest_data: bytes
    steps: tuple[StoredRecord, ...]
    """The whole chain; what goes into a step stands before it."""

    @cached_property
    def named(self) -> dict[str, StoredRecord]:
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
        return read_checked(self.store, key, listed.sha256)

    def json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file of the release; {} if there is no such file. Raises InputError."""
        data = self.read(path)
        try:
            value = {} if data is None else json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{self.release.path}/{path}", "not a JSON object", fix=CHANGED)
        return value

    def lock(self) -> bytes | None:
        """Return the lock that the model's environment was installed from; None if the store does not have it."""
        model = self.named.get("model") or (self.steps[-1] if self.steps else None)
        digest = model.record.lock if model else None
        key = f"locks/{digest}.txt"
        return read_checked(self.store, key, digest) if digest and self.store.list(key) else None


def read_facts(store: Store, release: Release) -> Facts:
    """Return the release's manifest and the chain of its records, with their signatures.

    Raises:
        InputError: a record of the chain is missing, or an object is not what its digest says.
    """
    manifest = read_checked(store, f"{release_key(release.task, release.version)}/{MANIFEST}", release.manifest)
    chain = read_release_chain(store, release)
    steps = tuple(
        StoredRecord(record, chain.data[digest], _envelope(store, digest)) for digest, record in chain.records.items()
    )
    return Facts(store, release, dict(chain.manifest), manifest, steps)


def _envelope(store: Store, digest: str) -> bytes | None:
    """Return the first envelope whose payload is the record; who signed it is not judged here."""
    for key in store.list(f"signatures/{digest}/"):
        data = store.get(key).data
        if sha256_bytes(open_envelope(data, where=f"{store.url}/{key}").payload) == digest:
            return data
    return None
