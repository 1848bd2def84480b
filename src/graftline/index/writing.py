"""Put parsed objects into the tables."""

from __future__ import annotations

import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.index.chunks import Chunk
from graftline.index.parsing import ParsedEntry, Setting
from graftline.index.schema import OTHER_INDEXES, RECORD_INDEXES

if TYPE_CHECKING:
    Numbers = np.ndarray[Any, Any]

BATCH = 4000
"""Rows of records, releases and entries between two flushes."""
PAGE = 512
"""Files to a page of the file index."""
OFFSET = 1 << 63
_ALIAS_EVENTS = frozenset({"promote", "rollback"})


class Writer:
    """Adds rows within the caller's transaction. `fresh`: the tables are empty and have no indexes yet."""

    def __init__(self, db: sqlite3.Connection, *, fresh: bool) -> None:
        self._db, self._fresh = db, fresh
        self._objects: dict[bytes, int] = {}
        self._small: dict[Any, int] = {}
        """Ids of names, kinds, settings and texts by what they say."""
        self._rows: dict[str, list[tuple[Any, ...]]] = {
            "objects": [],
            "records": [],
            "inputs": [],
            "releases": [],
            "parts": [],
            "ledger": [],
        }
        self._listed: list[tuple[int, bytes]] = []
        """Holder and packed files (selecting.unpacked) whose place in the file index is still to be written."""
        self._heads: list[tuple[Numbers, Numbers]] = []
        self._releases = 0
        self._aliases: dict[tuple[int, int], tuple[int, int]] = {}
        self._pending = 0
        self._finished_records = False

    def reserve(self, digests: list[bytes]) -> None:
        """Give the records of a fresh index their ids in the order in which they will be added."""
        self._objects = {digest: number for number, digest in enumerate(digests, 1)}
        self._db.executemany("INSERT INTO objects VALUES (?, ?)", enumerate(digests, 1))

    def add(self, chunk: Chunk) -> None:
        """Add what a chunk holds. `ledger` entries must come in order."""
        for lock, packages in chunk.locks:
            self._add_lock(lock, packages)
        for key, reason in chunk.problems:
            self.add_problem(key, reason)
        names = [self._name(name) for name in chunk.names]
        texts = [self._text(text) for text in chunk.texts]
        if chunk.records:
            self._add_records(chunk, names, texts)
        self._add_releases(chunk, names, texts)
        for entry in chunk.entries:
            self.add_entry(entry)

    def add_local(self, chunk: Chunk) -> int:
        """Add the one record of a chunk as one that the store may lack; return its id."""
        names = [self._name(name) for name in chunk.names]
        return self._add_records(chunk, names, [self._text(text) for text in chunk.texts], stored=False)

    def _add_records(self, chunk: Chunk, names: list[int], texts: list[int], *, stored: bool = True) -> int:
        """Add the records; return the id of the last one."""
        kinds = [self._kind(kind) for kind in chunk.kinds]
        settings = [self._setting(setting) for setting in chunk.settings]
        rows, given, listed = self._rows["records"], self._rows["inputs"], self._listed
        known, ids = self._objects.get, self._object  # the first without a call of Python's, a million times
        number = 0
        for sha256, kind, content, setting, parameters, metrics, layout, files, inputs in chunk.records:
            number = ids(sha256)
            if not self._fresh and self._is_known(number, stored):
                continue
            rows.append((
                number, kinds[kind], known(content) or ids(content), settings[setting], texts[parameters], metrics,
                texts[layout], files, stored,
            ))  # fmt: skip
            listed.append((number, files))
            for place, (name, of, record, notes, form, listing) in enumerate(inputs):
                given.append((
                    number, place, names[name], known(of) or ids(of), record and (known(record) or ids(record)),
                    notes, None if form is None else texts[form], listing,
                ))  # fmt: skip
                if listing:
                    listed.append((number, listing))
        self._tick(len(chunk.records))
        return number

    def _is_known(self, number: int, stored: bool) -> bool:
        """Return whether the record is there; if the store holds it now, note that."""
        self.flush()
        if stored:
            self._db.execute("UPDATE records SET stored = 1 WHERE id = ?", (number,))
        return self._db.execute("SELECT 1 FROM records WHERE id = ?", (number,)).fetchone() is not None

    def _add_releases(self, chunk: Chunk, names: list[int], texts: list[int]) -> None:
        rows, parts = self._rows["releases"], self._rows["parts"]
        known, ids = self._objects.get, self._object
        for manifest, task, version, content, at, metrics, run, form, files, named in chunk.releases:
            number = self._next_release()
            rows.append((
                number, names[task], version, manifest, known(content) or ids(content), at, metrics, run,
                texts[form], files,
            ))  # fmt: skip
            self._listed.append((-number, files))
            parts += [(known(record) or ids(record), number, names[name]) for name, record in named]
        self._tick(len(chunk.releases))

    def add_entry(self, entry: ParsedEntry) -> None:
        sequence, event, task, version, alias, at, actor, key = entry
        task_id = self._name(task)
        alias_id = None if alias is None else self._name(alias)
        self._rows["ledger"].append((
            sequence, self._name(event), task_id, version, alias_id, at, self._name(actor),
            None if key is None else self._name(key),
        ))  # fmt: skip
        if alias_id is not None and event in _ALIAS_EVENTS:
            self._aliases[task_id, alias_id] = (version, sequence)
        self._tick(1)

    def _add_lock(self, lock: str, packages: dict[str, str]) -> None:
        rows = ((lock, name, version) for name, version in packages.items())
        self._db.executemany("INSERT OR REPLACE INTO packages VALUES (?, ?, ?)", rows)

    def add_problem(self, key: str, reason: str) -> None:
        shown = key.encode(errors="backslashreplace").decode()
        self._db.execute("INSERT OR REPLACE INTO problems VALUES (?, ?)", (shown, reason))

    def flush(self) -> None:
        """Write what was added so far."""
        for table, rows in self._rows.items():
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                self._db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
                rows.clear()
        rows = [(*key, *value) for key, value in self._aliases.items()]
        self._db.executemany("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?)", rows)
        self._aliases.clear()
        (self._gather_heads if self._fresh else self._insert_heads)()
        self._listed.clear()
        self._pending = 0

    def finish_records(self) -> None:
        """Make the indexes of a fresh database that no later row changes; a second call does nothing."""
        if self._fresh and not self._finished_records:
            self._finished_records = True
            self.flush()
            for statement in RECORD_INDEXES:
                self._db.execute(statement)

    def finish(self) -> None:
        """Flush; of a fresh database, write the pages of the file index and make the indexes."""
        self.finish_records()
        self.flush()
        if not self._fresh:
            return
        with ThreadPoolExecutor(1) as pool:  # numpy sorts while SQLite does
            pages = pool.submit(_sorted_heads, self._heads) if self._heads else None
            for statement in OTHER_INDEXES:
                self._db.execute(statement)
            if pages is not None:
                self._write_pages(*pages.result())
        self._heads.clear()

    def _tick(self, count: int) -> None:
        self._pending += count
        if self._pending >= BATCH:
            self.flush()

    def _object(self, sha256: bytes) -> int:
        number = self._objects.get(sha256)
        if number is None:
            if self._fresh:
                number = len(self._objects) + 1
                self._rows["objects"].append((number, sha256))
            else:
                number = self._found("objects", "sha256", sha256, (sha256,))
            self._objects[sha256] = number
        return number

    def _found(self, table: str, column: str, key: Any, values: tuple[Any, ...]) -> int:
        """Return the id of a row, inserted if it is not there."""
        if row := self._db.execute(f"SELECT id FROM {table} WHERE {column} = ?", (key,)).fetchone():  # noqa: S608
            return int(row[0])
        marks = ", ".join("?" * len(values))
        return int(self._db.execute(f"INSERT INTO {table} VALUES (NULL, {marks})", values).lastrowid or 0)  # noqa: S608

    def _name(self, text: str) -> int:
        number = self._small.get(text)
        if number is None:
            number = self._small[text] = self._found("names", "text", text, (text,))
        return number

    def _kind(self, kind: tuple[str, str, str]) -> int:
        number = self._small.get(kind)
        if number is None:
            component, task, name = kind
            query = "SELECT id FROM kinds WHERE task = ? AND component = ? AND name = ?"
            row = self._db.execute(query, (task, component, name)).fetchone()
            insert = "INSERT INTO kinds VALUES (NULL, ?, ?, ?)"
            number = int(row[0] if row else self._db.execute(insert, kind).lastrowid or 0)
            self._small[kind] = number
        return number

    def _setting(self, setting: Setting) -> int:
        number = self._small.get(setting)
        if number is None:
            key = hashlib.blake2b(repr(setting).encode(), digest_size=16).digest()
            values = (*setting[:4], setting[4].decode(), key)
            number = self._small[setting] = self._found("settings", "key", key, values)
        return number

    def _text(self, text: bytes) -> int:
        key = hashlib.blake2b(text, digest_size=16).digest()  # not the text: each record may have its own
        number = self._small.get(key)
        if number is None:
            number = self._small[key] = self._found("texts", "key", key, (key, text.decode()))
        return number

    def _next_release(self) -> int:
        if not self._fresh and not self._releases:
            self._releases = self._db.execute("SELECT ifnull(max(id), 0) FROM releases").fetchone()[0]
        self._releases += 1
        return self._releases

    def _insert_heads(self) -> None:
        rows = (
            (int.from_bytes(digests[at : at + 8]) - OFFSET, holder)
            for holder, digests in self._listed
            for at in range(0, len(digests) // 40 * 32, 32)
        )
        self._db.executemany("INSERT OR IGNORE INTO file_heads VALUES (?, ?)", rows)

    def _gather_heads(self) -> None:
        if not self._listed:
            return
        holders = np.array([holder for holder, _ in self._listed], np.int32)
        counts = np.array([len(files) // 40 for _, files in self._listed])
        heads = np.frombuffer(b"".join([f[: len(f) // 40 * 32] for _, f in self._listed]), ">u8")[::4]
        shifted = (heads.astype(np.uint64) ^ np.uint64(OFFSET)).view(np.int64)
        self._heads.append((shifted, np.repeat(holders, counts)))

    def _write_pages(self, heads: Numbers, holders: Numbers) -> None:
        rows = (
            (number, int(part[0]), int(part[-1]), part.tobytes(), holders[start : start + PAGE].tobytes())
            for number, start in enumerate(range(0, len(heads), PAGE))
            for part in [heads[start : start + PAGE]]
        )
        self._db.executemany("INSERT INTO file_pages VALUES (?, ?, ?, ?, ?)", rows)


def _sorted_heads(parts: list[tuple[Numbers, Numbers]]) -> tuple[Numbers, Numbers]:
    """Return the beginnings of digests in order, and the holder of each."""
    heads = np.concatenate([part for part, _ in parts])
    order = np.argsort(heads)
    return heads[order], np.concatenate([part for _, part in parts])[order]
