"""The questions that the index answers; all are read-only and give the same for a directory store and for S3."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graftline.errors import BusyError, InputError, nearest
from graftline.index import files, matching, reaching
from graftline.index.rows import AliasChange, FileHolder, IndexedRecord, IndexedRelease, Match, Problem, Reached
from graftline.index.selecting import records_by_id, releases_by_id
from graftline.locks import package_name
from graftline.releases.layout import parse_reference
from graftline.store import Store

_HISTORY = """
SELECT l.sequence, e.text, t.text, l.version, a.text, l.at, w.text, k.text
FROM ledger l JOIN names e ON e.id = l.event JOIN names t ON t.id = l.task LEFT JOIN names a ON a.id = l.alias
  JOIN names w ON w.id = l.actor LEFT JOIN names k ON k.id = l.key
"""
_AT_ONCE = 500
"""Digests to a statement."""
_BY_TIME = "ORDER BY created DESC, (SELECT text FROM names WHERE names.id = task), version DESC"


class Index:
    """An open index. Close it, or use it in a `with` block; use it from one thread."""

    def __init__(self, store: Store, db: sqlite3.Connection, remake: Callable[[], sqlite3.Connection]) -> None:
        self.store = store
        self._db, self._remake = db, remake

    def counts(self) -> dict[str, int]:
        """Return how many records, releases, ledger entries and problems there are."""
        return {
            name: self._all(f"SELECT count(*) FROM {name}")[0][0]  # noqa: S608  (names of ours)
            for name in ("records", "releases", "ledger", "problems")
        }

    def tasks(self) -> list[str]:
        """Return the tasks with a record or release, sorted."""
        released = "SELECT text FROM names WHERE id IN (SELECT DISTINCT task FROM releases)"
        return [task for (task,) in self._all(f"SELECT task FROM kinds UNION {released} ORDER BY 1")]  # noqa: S608  (names of ours)

    def releases(self, task: str | None = None, *, limit: int | None = None, offset: int = 0) -> list[IndexedRelease]:
        """Return releases, the newest first: of a task by version, of all by when they were made."""
        where = "WHERE task = (SELECT id FROM names WHERE text = ?) ORDER BY version DESC"
        order = where if task is not None else _BY_TIME
        values = ([] if task is None else [task]) + [-1 if limit is None else limit, offset]
        return self._releases(self._all(f"SELECT id FROM releases {order} LIMIT ? OFFSET ?", values))  # noqa: S608  (names of ours)

    def release(self, task: str, version: int) -> IndexedRelease | None:
        """Return one release; None if there is none."""
        where = "WHERE task = (SELECT id FROM names WHERE text = ?) AND version = ?"
        found = self._releases(self._all(f"SELECT id FROM releases {where}", (task, version)))  # noqa: S608  (names of ours)
        return found[0] if found else None

    def resolve(self, reference: str) -> IndexedRelease:
        """Return the release that `task`, `task@alias` or `task@version` names.

        Raises:
            InputError: there is none; the line lists what there is.
        """
        task, selector = parse_reference(reference)
        aliases = {alias: version for (_, alias), version in self.aliases(task).items()}
        version = selector if isinstance(selector, int) else aliases.get(selector)
        found = None if version is None else self.release(task, version)
        if found is None:
            raise self._no_release(task, selector, aliases)
        return found

    def _no_release(self, task: str, selector: int | str, aliases: dict[str, int]) -> InputError:
        have = [release.version for release in self.releases(task, limit=1)]
        if not have:
            close = nearest(task, self.tasks())
            return InputError(f"task '{task}'", f"no release in {self.store.url}{close}")
        named = "".join(f", {name} is {version}" for name, version in sorted(aliases.items()))
        return InputError(
            f"task '{task}'", f"no release '{selector}'", expected=f"one of the versions up to {have[0]}{named}"
        )

    def releases_of(self, records: Iterable[str]) -> list[IndexedRelease]:
        """Return the releases that have one of these records as a part, by task and version."""
        query = "SELECT DISTINCT release FROM parts WHERE record IN (SELECT value FROM json_each(?))"
        found = self._releases(self._all(query, (json.dumps(self._ids(records)),)))
        return sorted(found, key=lambda release: (release.task, release.version))

    def releases_with_content(self, content: str) -> list[IndexedRelease]:
        """Return the releases of exactly these bits, by task and version."""
        query = "SELECT id FROM releases WHERE content = (SELECT id FROM objects WHERE sha256 = ?)"
        found = self._releases(self._all(query, (bytes.fromhex(content),)))
        return sorted(found, key=lambda release: (release.task, release.version))

    def releases_with_file(self, file: str) -> list[IndexedRelease]:
        """Return the releases whose manifest lists a file with this sha256, by task and version."""
        found = releases_by_id(self._all, files.releases_with(self._all, file)).values()
        return sorted(found, key=lambda release: (release.task, release.version))

    def release_with_manifest(self, manifest: str) -> IndexedRelease | None:
        """Return the release with this sha256 of manifest.json."""
        found = self._releases(self._all("SELECT id FROM releases WHERE manifest = ?", (bytes.fromhex(manifest),)))
        return found[0] if found else None

    def aliases(self, task: str | None = None) -> dict[tuple[str, str], int]:
        """Return the version that each (task, alias) points at, as the ledger decides."""
        query = """SELECT t.text, n.text, a.version FROM aliases a JOIN names t ON t.id = a.task
            JOIN names n ON n.id = a.alias WHERE ? IS NULL OR t.text = ? ORDER BY 1, 2"""
        return {(of, alias): version for of, alias, version in self._all(query, (task, task))}

    def history(
        self,
        task: str | None = None,
        *,
        version: int | None = None,
        before: int | None = None,
        newest: int | None = None,
    ) -> list[AliasChange]:
        """Return the ledger's entries, oldest first: those before a sequence, and of them only so many, the newest."""
        where, values = [], list[Any]()
        if task is not None:
            where, values = ["l.task = (SELECT id FROM names WHERE text = ?)"], [task]
        if version is not None:
            where, values = [*where, "l.version = ?"], [*values, version]
        if before is not None:
            where, values = [*where, "l.sequence < ?"], [*values, before]
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        rows = self._all(
            f"{_HISTORY} {condition} ORDER BY l.sequence DESC LIMIT ?", [*values, -1 if newest is None else newest]
        )
        return [AliasChange(*row) for row in reversed(rows)]

    def record(self, sha256: str) -> IndexedRecord | None:
        """Return one record; None if it is not in the index."""
        found = records_by_id(self._all, self._ids([sha256]))
        return next(iter(found.values()), None)

    def records(
        self,
        sha256s: Iterable[str] | None = None,
        *,
        task: str | None = None,
        component: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[IndexedRecord]:
        """Return the given records, or all of a task and component, sorted by task, component and sha256."""
        if sha256s is not None:
            ids = self._ids(sha256s)
        else:
            query = """SELECT r.id FROM kinds k JOIN records r ON r.kind = k.id JOIN objects o ON o.id = r.id
                WHERE (?1 IS NULL OR k.task = ?1) AND (?2 IS NULL OR k.component = ?2)
                ORDER BY k.task, k.component, o.sha256 LIMIT ?3 OFFSET ?4"""
            rows = self._all(query, (task, component, -1 if limit is None else limit, offset))
            ids = [number for (number,) in rows]
        found = records_by_id(self._all, ids).values()
        return sorted(found, key=lambda record: (record.task, record.component, record.sha256))

    def records_with_content(self, content: str) -> list[str]:
        """Return the sha256 of each record whose output is `content`, sorted."""
        query = """SELECT o.sha256 FROM records r JOIN objects o ON o.id = r.id
            WHERE r.content = (SELECT id FROM objects WHERE sha256 = ?) ORDER BY 1"""
        return [blob.hex() for (blob,) in self._all(query, (bytes.fromhex(content),))]

    def ancestors(self, records: Iterable[str]) -> list[IndexedRecord]:
        """Return the given records and all that they were made from; what something is made from comes first.

        A record that the store lacks is left out; the input that names it says which.
        """
        return reaching.ancestors(self._all, self._ids(records))

    def dependents(self, content: str, *, without: str | None = None) -> list[str]:
        """Return the records that name `content` as an input, whatever made it, sorted.

        Args:
            content: the sha256 of the input's content.
            without: the name of inputs that do not count, such as `champion`.
        """
        query = """SELECT DISTINCT o.sha256 FROM inputs i JOIN objects o ON o.id = i.record
            JOIN names n ON n.id = i.name
            WHERE i.content = (SELECT id FROM objects WHERE sha256 = ?1) AND n.text IS NOT ?2 ORDER BY 1"""
        return [blob.hex() for (blob,) in self._all(query, (bytes.fromhex(content), without))]

    def descendants(self, records: Iterable[str]) -> list[str]:
        """Return the given records and all that were made from their outputs, through any number of steps, sorted.

        What was merely compared with something (`champion`) was not made from it.
        """
        return reaching.descendants(self._all, self._ids(records))

    def reached(self, records: Iterable[str], *, limit: int | None = None) -> Reached:
        """Return the records that `descendants` gives with the releases that they are in, at most `limit` of each."""
        return reaching.reached(self._all, self._ids(records), limit)

    def holders(self, file: str) -> list[FileHolder]:
        """Return every output and every input with listed files that holds the file with this sha256."""
        return files.holders(self._all, file)

    def records_of_commit(self, commit: str) -> list[str]:
        """Return the records made by this commit, or by the one that begins so (at least 7 hex digits)."""
        return self._of_setting("s.code >= ? AND s.code <= ?", (commit, f"{commit}g"))

    def records_of_image(self, image: str) -> list[str]:
        """Return the records made in the image with this digest."""
        return self._of_setting("s.image = ?", (image,))

    def records_of_lock(self, lock: str) -> list[str]:
        """Return the records made with the environment lock that has this sha256."""
        return self._of_setting("s.lock = ?", (lock,))

    def _of_setting(self, condition: str, values: Sequence[str]) -> list[str]:
        query = f"""SELECT o.sha256 FROM settings s JOIN records r ON r.setting = s.id
            JOIN objects o ON o.id = r.id WHERE {condition} ORDER BY 1"""  # noqa: S608  (names of ours)
        return [blob.hex() for (blob,) in self._all(query, values)]

    def locks_with(self, package: str, version: str | None = None) -> list[str]:
        """Return the environment locks that pin this package (PEP 503 names are equal), at any version if None."""
        query = "SELECT lock FROM packages WHERE name = ?1 AND (?2 IS NULL OR version = ?2) ORDER BY 1"
        return [lock for (lock,) in self._all(query, (package_name(package), version))]

    def packages(self, lock: str) -> dict[str, str]:
        """Return the version of each package in a lock; empty if the store lacks the lock's text."""
        return dict(self._all("SELECT name, version FROM packages WHERE lock = ? ORDER BY name", (lock,)))

    def locks_missing(self) -> list[str]:
        """Return the locks that records name and whose text the store lacks, sorted."""
        query = """SELECT DISTINCT lock FROM settings
            WHERE lock IS NOT NULL AND lock NOT IN (SELECT lock FROM packages) ORDER BY 1"""
        return [lock for (lock,) in self._all(query)]

    def keyids(self, record: str) -> tuple[str, ...]:
        """Return the keys under which the store holds a signature of the record. None of them was verified."""
        names = (key.rpartition("/")[2] for key in self.store.list(f"signatures/{record}/"))
        return tuple(sorted(name.removesuffix(".json") for name in names))

    def match(self, digest: str) -> list[Match]:
        """Return all that a digest names; with 8 to 63 hex digits, all whose digest begins so."""
        return matching.match(self._all, digest.lower())

    def problems(self) -> list[Problem]:
        """Return what was left out and why, by key."""
        return [Problem(*row) for row in self._all("SELECT key, reason FROM problems ORDER BY key")]

    def close(self) -> None:
        """Close the database; the index answers nothing more."""
        self._db.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _releases(self, rows: list[Any]) -> list[IndexedRelease]:
        """Return the releases with these ids, in their order."""
        found = releases_by_id(self._all, [number for (number,) in rows])
        return [found[number] for (number,) in rows]

    def _ids(self, sha256s: Iterable[str]) -> list[int]:
        """Return the ids of digests that the index knows."""
        wanted, found = [bytes.fromhex(sha256) for sha256 in dict.fromkeys(sha256s)], list[int]()
        for at in range(0, len(wanted), _AT_ONCE):
            some = wanted[at : at + _AT_ONCE]
            query = f"SELECT id FROM objects WHERE sha256 IN ({', '.join('?' * len(some))})"  # noqa: S608  (names of ours)
            found += [number for (number,) in self._all(query, some)]
        return found

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows; a damaged database is made anew first."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise BusyError("the index", "another process is changing it", fix="run again") from None
            self._db.close()
            self._db = self._remake()
            return self._db.execute(query, values).fetchall()
