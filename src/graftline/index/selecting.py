"""Rows of the tables as what the index answers with."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from graftline.digests import FileDigest
from graftline.index.parsing import Listing, ParsedRecord, run_id
from graftline.index.rows import IndexedRecord, IndexedRelease, Input

Query = Callable[[str, Sequence[Any]], list[Any]]
"""Runs one statement with its values and returns the rows."""

_RECORDS = """
SELECT r.id, o.sha256, k.component, k.task, k.name, c.sha256, s.code, s.dirty, s.lock, s.image, p.text, r.metrics,
  s.environment, r.layout, r.files, r.stored, (SELECT min(folder) FROM places WHERE record = r.id)
FROM records r JOIN objects o ON o.id = r.id JOIN kinds k ON k.id = r.kind JOIN objects c ON c.id = r.content
  JOIN settings s ON s.id = r.setting JOIN texts p ON p.id = r.parameters
WHERE r.id IN (SELECT value FROM json_each(?))
"""
_INPUTS = """
SELECT i.record, n.text, c.sha256, m.sha256, i.annotations, i.layout, i.files
FROM inputs i JOIN names n ON n.id = i.name JOIN objects c ON c.id = i.content LEFT JOIN objects m ON m.id = i.made_by
WHERE i.record IN (SELECT value FROM json_each(?)) ORDER BY i.record, i.place
"""
_RELEASES = """
SELECT r.id, n.text, r.version, r.manifest, c.sha256, r.created, r.metrics, r.publication
FROM releases r JOIN names n ON n.id = r.task JOIN objects c ON c.id = r.content
WHERE r.id IN (SELECT value FROM json_each(?))
"""
_PARTS = """
SELECT p.release, n.text, o.sha256 FROM parts p JOIN names n ON n.id = p.name JOIN objects o ON o.id = p.record
WHERE p.release IN (SELECT value FROM json_each(?)) ORDER BY n.text
"""
_ALIASES = """
SELECT r.id, n.text FROM releases r JOIN aliases a ON a.task = r.task AND a.version = r.version
  JOIN names n ON n.id = a.alias
WHERE r.id IN (SELECT value FROM json_each(?)) ORDER BY n.text
"""


def records_by_id(query: Query, ids: Iterable[int]) -> dict[int, IndexedRecord]:
    """Return the records with these ids, in no order; an id without a record is left out."""
    wanted = json.dumps(list(ids))
    layouts = Layouts(query)
    inputs: dict[int, list[Input]] = {}
    for record, name, content, made_by, notes, layout, files in query(_INPUTS, (wanted,)):
        inputs.setdefault(record, []).append(
            Input(
                name,
                content.hex(),
                made_by.hex() if made_by else None,
                orjson.loads(notes) if notes else {},
                () if layout is None else unpacked(layouts.names(layout), files),
            )
        )
    found = {}
    for row in query(_RECORDS, (wanted,)):
        (number, sha256, component, task, name, content, code, dirty, lock, image, parameters, metrics,
         environment, layout, files, stored, folder) = row  # fmt: skip
        found[number] = IndexedRecord(
            sha256.hex(), component, task, name, content.hex(), code, dirty, lock, image, orjson.loads(parameters),
            orjson.loads(metrics), orjson.loads(environment), tuple(inputs.get(number, ())),
            unpacked(layouts.names(layout), files), bool(stored), folder,
        )  # fmt: skip
    return found


def as_indexed(sha256: str, record: ParsedRecord, folder: str) -> IndexedRecord:
    """Return a record that was read from a folder as if the index had it."""
    (component, task, name), content, (commit, dirty, lock, image, environment) = record[:3]
    parameters, metrics, inputs, files = record[3:]
    return IndexedRecord(
        sha256, component, task, name, content, commit, dirty, lock, image, orjson.loads(parameters),
        orjson.loads(metrics), orjson.loads(environment),
        tuple(
            Input(
                of, digest, made_by, orjson.loads(notes) if notes else {}, unpacked(*_joined(listed)) if listed else ()
            )
            for of, digest, made_by, notes, listed in inputs
        ),
        unpacked(*_joined(files)), False, folder,
    )  # fmt: skip


def _joined(files: Listing) -> tuple[tuple[str, ...], bytes]:
    return files[0], files[1] + files[2]


def releases_by_id(query: Query, ids: Iterable[int]) -> dict[int, IndexedRelease]:
    """Return the releases with these ids, in no order."""
    wanted = json.dumps(list(ids))
    parts: dict[int, dict[str, str]] = {}
    for release, name, record in query(_PARTS, (wanted,)):
        parts.setdefault(release, {})[name] = record.hex()
    aliases: dict[int, list[str]] = {}
    for release, alias in query(_ALIASES, (wanted,)):
        aliases.setdefault(release, []).append(alias)
    return {
        number: IndexedRelease(
            task, version, manifest.hex(), content.hex(), created, orjson.loads(metrics), parts.get(number, {}),
            tuple(aliases.get(number, ())), publication, run_id(publication),
        )
        for number, task, version, manifest, content, created, metrics, publication in query(_RELEASES, (wanted,))
    }  # fmt: skip


class Layouts:
    """Lists of file names by id, each read once."""

    def __init__(self, query: Query) -> None:
        self._query, self._known = query, dict[int, list[str]]()

    def names(self, number: int) -> list[str]:
        if number not in self._known:
            ((text,),) = self._query("SELECT text FROM texts WHERE id = ?", (number,))
            self._known[number] = orjson.loads(text)
        return self._known[number]


def unpacked(names: Sequence[str], files: bytes) -> tuple[FileDigest, ...]:
    """Return the files whose digests, then sizes, are packed in `files`."""
    count = len(names)
    sizes = array("Q", files[32 * count :])
    return tuple(
        FileDigest(name, size, files[32 * at : 32 * at + 32].hex())
        for at, (name, size) in enumerate(zip(names, sizes, strict=True))
    )
