"""What the index answers with. Digests are 64 hex digits; every name and value is from a record: hostile input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from graftline.digests import FileDigest

Kind = Literal["record", "content", "input", "file", "release", "image", "lock", "commit"]
"""What a digest may name: a record; an output's content; an input from outside (raw data, a base checkpoint); one
file; a release, by its manifest or its content; what the code ran in; a commit."""


@dataclass(frozen=True)
class Input:
    """One dependency of a record, other than code, lock and image."""

    name: str
    """As the record names it: `dataset`, `trunk`, `raw`, `rootstock`, ..."""
    sha256: str
    """Of its content."""
    record: str | None
    """The record of what made it; None for what came from outside. The store may lack it."""
    annotations: dict[str, Any] = field(default_factory=dict)
    """What else the record says of it, such as licence and source; `record` and `files` are left out."""
    files: tuple[FileDigest, ...] = ()
    """The files of raw data, where the record lists them."""


@dataclass(frozen=True)
class IndexedRecord:
    """A record as the index knows it. Its sha256 was compared with its bytes when it was read; nothing else was."""

    sha256: str
    component: str
    task: str
    name: str
    """Of the output, such as `trunk`."""
    content: str
    """The sha256 of the output's content."""
    commit: str | None
    dirty: str | None
    """The sha256 of the difference from the commit, if there was one; UNKNOWN_CHANGES where the record lacks it."""
    lock: str | None
    image: str | None
    parameters: dict[str, Any]
    """Parameter sections after defaults, by section name."""
    metrics: dict[str, Any]
    environment: dict[str, Any]
    inputs: tuple[Input, ...]
    files: tuple[FileDigest, ...]
    """Of the output."""
    stored: bool
    """Whether the store holds it."""
    folder: str | None
    """A local folder that holds its output, of those that the index was opened with."""


@dataclass(frozen=True)
class IndexedRelease:
    """A published version."""

    task: str
    version: int
    manifest: str
    """The sha256 of manifest.json."""
    content: str
    created: str
    """ISO 8601, UTC."""
    metrics: dict[str, Any]
    records: dict[str, str]
    """The record of each part (dataset, trunk, model, evaluation), by name."""
    aliases: tuple[str, ...]
    """Those that point at it by the ledger, sorted."""
    publication: str
    run: str | None
    """The id of the run that published it, by its publication id; None for a publication outside a run."""

    @property
    def reference(self) -> str:
        return f"{self.task}@{self.version}"


@dataclass(frozen=True)
class AliasChange:
    """One entry of the ledger: a release, promotion, rollback, erasure or key event."""

    sequence: int
    event: str
    task: str
    version: int
    alias: str | None
    at: str
    actor: str
    key: str | None
    """Id of the key that signed the entry, if one did. Not verified."""


@dataclass(frozen=True)
class FileHolder:
    """Where a file is: in the output of a record, or among the raw data that a record was made from."""

    record: str
    path: str
    size: int
    """Bytes."""
    input: str | None
    """The name of the input that holds it; None if the record's own output does."""


@dataclass(frozen=True)
class Match:
    """Something that a digest, or its beginning, names."""

    kind: Kind
    sha256: str
    """Whole; for a commit its 40 hex digits."""


@dataclass(frozen=True)
class Problem:
    """An object that was left out."""

    key: str
    """In the store, or a path."""
    reason: str


@dataclass(frozen=True)
class Reached:
    """What was made from some records, the records themselves included."""

    counts: dict[tuple[str, str], int]
    """How many records, by the output's name (dataset, trunk, model, evaluation, ...) and task. Complete."""
    records: list[IndexedRecord]
    """Sorted by task, component and sha256; the first `limit` of each output's name."""
    release_count: int
    releases: list[IndexedRelease]
    """By task and version; of each task first those with an alias, then the newest; at most `limit`."""
    aliases: dict[tuple[str, str], int]
    """The version by (task, alias), of those that point at a release reached now. Complete."""
