"""What a digest, or its beginning, names."""

from __future__ import annotations

import re
from typing import Any

from graftline.errors import InputError
from graftline.index import files
from graftline.index.rows import Kind, Match
from graftline.index.selecting import Query

_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_OBJECTS: tuple[tuple[Kind, str], ...] = (
    ("record", "SELECT 1 FROM records WHERE id = ?"),
    ("content", "SELECT 1 FROM records WHERE content = ? LIMIT 1"),
    ("release", "SELECT 1 FROM releases WHERE content = ? LIMIT 1"),
    ("input", "SELECT 1 FROM inputs WHERE content = ? LIMIT 1"),
)
_SETTINGS: tuple[tuple[Kind, str], ...] = (("image", "image"), ("lock", "lock"), ("commit", "code"))


def match(query: Query, digest: str) -> list[Match]:
    """Return what the digest (8 to 64 hex digits, lower case) names: each kind and whole digest once.

    Raises:
        InputError: it is none.
    """
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"digest '{digest[:80]}'", "not one", expected="8 to 64 hex digits of a sha256")
    found = _objects(query, digest)
    found += [Match("release", blob.hex()) for (blob,) in _between(query, "manifest", "releases", digest)]
    found += [Match("file", sha256) for sha256 in sorted(files.matching(query, digest))]
    for kind, column in _SETTINGS:
        statement = f"SELECT DISTINCT {column} FROM settings WHERE {column} >= ? AND {column} <= ?"  # noqa: S608  (names of ours)
        found += [Match(kind, text) for (text,) in query(statement, (digest, f"{digest}g"))]
    return sorted(set(found), key=lambda m: (m.sha256, m.kind))


def _objects(query: Query, digest: str) -> list[Match]:
    rows = _between(query, "sha256, id", "objects", digest)
    return [
        Match(kind, blob.hex()) for blob, number in rows for kind, statement in _OBJECTS if query(statement, (number,))
    ]


def _between(query: Query, columns: str, table: str, digest: str) -> list[Any]:
    """Return rows whose digest begins with the hex digits."""
    column = columns.partition(",")[0]
    low, high = bytes.fromhex(digest.ljust(64, "0")), bytes.fromhex(digest.ljust(64, "f"))
    return query(f"SELECT {columns} FROM {table} WHERE {column} BETWEEN ? AND ?", (low, high))  # noqa: S608  (names of ours)
