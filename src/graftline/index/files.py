"""Who lists a file: the index of files holds the beginnings of digests, the rows that it leads to hold all of them."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from graftline.index.rows import FileHolder
from graftline.index.selecting import Layouts, Query
from graftline.index.writing import OFFSET

_OWN = """
SELECT o.sha256, r.layout, r.files FROM records r JOIN objects o USING (id)
WHERE r.id IN (SELECT value FROM json_each(?))
"""
_GIVEN = """
SELECT o.sha256, n.text, i.layout, i.files FROM inputs i JOIN objects o ON o.id = i.record JOIN names n ON n.id = i.name
WHERE i.record IN (SELECT value FROM json_each(?)) AND i.layout IS NOT NULL
"""
_BOTH = """
SELECT files FROM records WHERE id = ?1 UNION ALL SELECT files FROM inputs WHERE record = ?1 AND files IS NOT NULL
"""
_RELEASED = "SELECT id, files FROM releases WHERE id IN (SELECT value FROM json_each(?))"


def span(prefix: str) -> tuple[int, int]:
    """Return the least and greatest head of the digests that begin with these hex digits."""
    head = prefix[:16]
    return int(head.ljust(16, "0"), 16) - OFFSET, int(head.ljust(16, "f"), 16) - OFFSET


def candidates(query: Query, prefix: str) -> set[int]:
    """Return records (and, negative, releases) that list a file whose digest begins so, as far as heads can tell."""
    low, high = span(prefix)
    rows = query("SELECT holder FROM file_heads WHERE head BETWEEN ? AND ?", (low, high))
    return {row[0] for row in rows} | set(_in_pages(query, low, high))


def _in_pages(query: Query, low: int, high: int) -> Iterator[int]:
    rows = query("SELECT number FROM file_pages WHERE last >= ? ORDER BY last, number LIMIT 1", (low,))
    number = rows[0][0] if rows else None
    while number is not None:
        page = query("SELECT first, heads, holders FROM file_pages WHERE number = ?", (number,))
        if not page or page[0][0] > high:
            return
        heads, holders = array("q", page[0][1]), array("i", page[0][2])
        yield from holders[bisect_left(heads, low) : bisect_right(heads, high)]
        number += 1


def holders(query: Query, sha256: str) -> list[FileHolder]:
    """Return each record that lists the file, in its output or in an input, by record and path."""
    numbers = json.dumps([number for number in candidates(query, sha256) if number > 0])
    wanted, layouts = bytes.fromhex(sha256), Layouts(query)
    found = [
        FileHolder(record.hex(), layouts.names(layout)[at], size, None)
        for record, layout, files in query(_OWN, (numbers,))
        for at, size in _places(files, wanted)
    ]
    found += [
        FileHolder(record.hex(), layouts.names(layout)[at], size, name)
        for record, name, layout, files in query(_GIVEN, (numbers,))
        for at, size in _places(files, wanted)
    ]
    return sorted(found, key=lambda holder: (holder.record, holder.input or "", holder.path))


def releases_with(query: Query, sha256: str) -> list[int]:
    """Return the ids of the releases that list the file."""
    numbers = json.dumps([-number for number in candidates(query, sha256) if number < 0])
    wanted = bytes.fromhex(sha256)
    return [number for number, files in query(_RELEASED, (numbers,)) if any(_places(files, wanted))]


def matching(query: Query, prefix: str) -> set[str]:
    """Return the digests of files that begin with `prefix`."""
    numbers = sorted(candidates(query, prefix))
    if len(prefix) == 64:
        return {prefix} if any(_has(query, number, bytes.fromhex(prefix)) for number in numbers) else set()
    packed = [files for number in numbers for files in _listings(query, number)]
    digests = (files[at : at + 32].hex() for files in packed for at in range(0, len(files) // 40 * 32, 32))
    return {digest for digest in digests if digest.startswith(prefix)}


def _has(query: Query, number: int, wanted: bytes) -> bool:
    return any(any(_places(files, wanted)) for files in _listings(query, number))


def _listings(query: Query, number: int) -> list[bytes]:
    """Return the files of a record and of its inputs, or of a release, packed."""
    statement = "SELECT files FROM releases WHERE id = ?" if number < 0 else _BOTH
    return [files for (files,) in query(statement, (abs(number),))]


def _places(files: bytes, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Give the place and the size of each file with the digest `wanted` among packed digests and sizes."""
    count = len(files) // 40
    at = files.find(wanted)
    while 0 <= at < 32 * count:
        if at % 32 == 0:
            yield at // 32, int.from_bytes(files[32 * count + at // 4 :][:8], "little")
        at = files.find(wanted, at + 1)
