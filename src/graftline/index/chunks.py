"""Objects parsed many at a time, in a form that another process can send: what the index's writer takes.

What many records share (kinds, settings, parameters, names) stands in a chunk once, and rows refer to its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from graftline.digests import sha256_bytes
from graftline.index.parsing import (
    ParsedEntry,
    ParsedInput,
    ParsedRecord,
    ParsedRelease,
    RefusedError,
    Setting,
    check_setting,
    check_text,
    parse_entry,
    parse_manifest,
    parse_record,
)
from graftline.index.sources import KEYS, Group, Source
from graftline.locks import versions

InputRow = tuple[int, bytes, bytes | None, str | None, int | None, bytes | None]
"""Name, content, record of what made it, annotations as JSON, layout, files."""
RecordRow = tuple[bytes, int, bytes, int, int, str, int, bytes, list[InputRow]]
"""sha256, kind, content, setting, parameters, metrics as JSON, layout, files, inputs."""
ReleaseRow = tuple[bytes, int, int, bytes, str, str, str, int, bytes, list[tuple[int, bytes]]]
"""sha256 of the manifest, task, version, content, created, metrics as JSON, publication, layout, files, parts."""


class Chunk:
    """Some objects of a store. The lists below are indexed by the rows."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str, str], int] = {}
        self.settings: dict[Setting, int] = {}
        self.texts: dict[bytes, int] = {}
        self.names: dict[str, int] = {}
        self.records: list[RecordRow] = []
        self.releases: list[ReleaseRow] = []
        self.entries: list[ParsedEntry] = []
        self.locks: list[tuple[str, dict[str, str]]] = []
        self.problems: list[tuple[str, str]] = []
        self.last = ""
        """Of ledger entries, the last one's place and digest."""
        self._layouts: dict[tuple[str, ...], int] = {}

    def as_tuple(self) -> tuple[Any, ...]:
        """Return what `marshal` can write."""
        return (
            self.kinds, self.settings, self.texts, self.names, self.records, self.releases, self.entries,
            self.locks, self.problems, self.last,
        )  # fmt: skip

    @classmethod
    def of_tuple(cls, values: tuple[Any, ...]) -> Chunk:
        made = cls()
        (made.kinds, made.settings, made.texts, made.names, made.records, made.releases, made.entries,
         made.locks, made.problems, made.last) = values  # fmt: skip
        return made

    def add_record(self, sha256: bytes, record: ParsedRecord) -> None:
        """Add a record. Raises RefusedError for one that names things wrongly; its row is not added then."""
        kind, content, setting, parameters, metrics, inputs, files = record
        try:
            self.records.append((
                sha256, self._kind(kind), digest_bytes(content), self._setting(setting), self._text(parameters),
                metrics.decode(), self._layout(files[0]), files[1] + files[2], [self._input(i) for i in inputs],
            ))  # fmt: skip
        except TypeError as error:  # a list or a mapping where a name is expected
            raise RefusedError(f"not a record ({error})") from None

    def add_release(self, manifest: bytes, release: ParsedRelease) -> None:
        layout, digests, sizes = release.files
        self.releases.append((
            manifest, self._name(release.task), release.version, digest_bytes(release.content), release.created,
            release.metrics.decode(), release.publication, self._layout(layout), digests + sizes,
            [(self._name(name), digest_bytes(record)) for name, record in release.records.items()],
        ))  # fmt: skip

    def _input(self, given: ParsedInput) -> InputRow:
        name, content, record, notes, files = given
        return (
            self._name(name),
            digest_bytes(content),
            None if record is None else digest_bytes(record),
            None if notes is None else notes.decode(),
            None if files is None else self._layout(files[0]),
            None if files is None else files[1] + files[2],
        )

    def _kind(self, kind: tuple[str, str, str]) -> int:
        number = self.kinds.get(kind)
        if number is None:
            for text in kind:
                check_text(text)
            number = self.kinds[kind] = len(self.kinds)
        return number

    def _setting(self, setting: Setting) -> int:
        number = self.settings.get(setting)
        if number is None:
            check_setting(setting)
            number = self.settings[setting] = len(self.settings)
        return number

    def _name(self, name: str) -> int:
        number = self.names.get(name)
        if number is None:
            number = self.names[check_text(name)] = len(self.names)
        return number

    def _text(self, text: bytes) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def _layout(self, names: tuple[str, ...]) -> int:
        number = self._layouts.get(names)
        if number is None:
            for name in names:
                check_text(name)
            number = self._layouts[names] = self._text(orjson.dumps(names))
        return number


def digest_bytes(text: Any) -> bytes:
    """Return the 32 bytes of a sha256 in hex. Raises RefusedError if it is none."""
    try:
        digest = bytes.fromhex(text)
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != 32 or digest.hex() != text:
        raise RefusedError("a digest that is not a sha256")
    return digest


def parse_chunk(source: Source, group: Group, keys: Sequence[str]) -> Chunk:
    """Read objects of one group and parse them; what is not as its name says goes to `problems`."""
    chunk = Chunk()
    add = {"records": _record, "releases": _release, "ledger": _entry, "locks": _lock}[group]
    for key, data, reason in source.read(keys):
        if data is None:  # it vanished meanwhile, or cannot be read
            if reason or group == "ledger":
                chunk.problems.append((key, reason or "it vanished"))
            continue
        try:
            add(chunk, key, data)
        except RefusedError as error:
            chunk.problems.append((key, str(error)))
    return chunk


def _record(chunk: Chunk, key: str, data: bytes) -> None:
    digest = hashlib.sha256(data).digest()
    if digest.hex() != key[8:72]:
        raise RefusedError(f"holds {digest.hex()}, not what it is named after")
    chunk.add_record(digest, parse_record(data))


def _release(chunk: Chunk, key: str, data: bytes) -> None:
    match = KEYS["releases"].fullmatch(key)
    assert match
    chunk.add_release(hashlib.sha256(data).digest(), parse_manifest(data, match[1], int(match[2])))


def _entry(chunk: Chunk, key: str, data: bytes) -> None:
    sequence = int(key[7:-5])
    chunk.last = f"{sequence}:{sha256_bytes(data)}"
    chunk.entries.append(parse_entry(data, sequence))


def _lock(chunk: Chunk, key: str, data: bytes) -> None:
    if sha256_bytes(data) != key[6:70]:
        raise RefusedError("not what it is named after")
    chunk.locks.append((key[6:70], versions(data)))
