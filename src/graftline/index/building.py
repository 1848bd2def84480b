"""Make the tables from a source: all of them anew, or only what was added and removed since."""

from __future__ import annotations

import gc
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from graftline.digests import RECORD, sha256_bytes
from graftline.index.chunks import Chunk, parse_chunk
from graftline.index.parsing import RefusedError, is_sha256, parse_entry, parse_manifest, parse_record
from graftline.index.reading import parsed
from graftline.index.schema import TABLES, VERSION
from graftline.index.sources import KEYS, Group, Source, read_file
from graftline.index.writing import Writer

Progress = Callable[[int, int], None]


def build(db: sqlite3.Connection, source: Source, parts: Path, progress: Progress | None = None) -> None:
    """Fill an empty database from `source`, within one transaction. `parts` is a folder for work in progress."""
    db.executescript(TABLES)
    db.execute("BEGIN")
    keys = {group: source.keys(group) for group in KEYS}
    writer = Writer(db, fresh=True)
    with _without_collection(), parsed(source, keys, parts) as found:
        writer.reserve([bytes.fromhex(key[8:72]) for key in keys["records"]])
        last = _add_all(writer, found, _count(keys), progress)
        writer.finish()
    set_meta(db, "version", str(VERSION))
    set_meta(db, "ledger", last)
    db.execute("COMMIT")


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage: millions of rows would be looked through again and again, and none refers to itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _add_all(writer: Writer, found: Iterable[tuple[Group, Chunk, int]], total: int, progress: Progress | None) -> str:
    """Add objects; return the last ledger entry's place and digest, as `behind` compares them."""
    last, done = "", 0
    for group, chunk, count in found:
        if group != "records":
            writer.finish_records()
        writer.add(chunk)
        last = chunk.last or last
        done += count
        if progress is not None:
            progress(done, total)
    return last


def look(db: sqlite3.Connection, source: Source, parts: Path, progress: Progress | None = None) -> None:
    """Take in every key that is new and drop what is gone; within the caller's transaction.

    An object that was changed in place is not read again: its name says what it held.
    """
    db.execute("DELETE FROM problems")
    keys = {group: source.keys(group) for group in KEYS}
    known_records = {_record_key(blob) for (blob,) in db.execute(_STORED)}
    known_releases = {f"releases/{task}/{version}/manifest.json" for task, version in db.execute(_RELEASED)}
    known_locks = {f"locks/{lock}.txt" for (lock,) in db.execute("SELECT DISTINCT lock FROM packages")}
    new_records = [key for key in keys["records"] if key not in known_records]
    new_releases = [key for key in keys["releases"] if key not in known_releases]
    new_locks = [key for key in keys["locks"] if key not in known_locks]
    writer = Writer(db, fresh=False)
    _forget_records(db, known_records.difference(keys["records"]))
    _forget_releases(db, known_releases.difference(keys["releases"]))
    gone_locks = [(_digest_in(key),) for key in known_locks.difference(keys["locks"])]
    db.executemany("DELETE FROM packages WHERE lock = ?", gone_locks)
    entries, known = _new_entries(db, source, keys["ledger"])
    new: dict[Group, list[str]] = {
        "records": new_records,
        "releases": new_releases,
        "ledger": entries,
        "locks": new_locks,
    }
    with parsed(source, new, parts) as found:
        set_meta(db, "ledger", _add_all(writer, found, _count(new), progress) or known)
    writer.finish()


def _count(keys: dict[Group, list[str]]) -> int:
    return sum(map(len, keys.values()))


_LOST = """
SELECT sha256 FROM records JOIN objects USING (id) WHERE NOT stored AND id NOT IN (SELECT record FROM places)
"""
_STORED = "SELECT sha256 FROM records JOIN objects USING (id) WHERE stored"
_RELEASED = "SELECT text, version FROM releases JOIN names ON names.id = task"


def _new_entries(db: sqlite3.Connection, source: Source, keys: list[str]) -> tuple[list[str], str]:
    """Return the keys to read, and up to where the ledger still agrees: all keys, unless it merely grew."""
    last = get_meta(db, "ledger")
    sequence, _, digest = last.partition(":")
    if last:
        data = next(source.read([ledger_key(int(sequence))]))[1]
        count = db.execute("SELECT count(*) FROM ledger").fetchone()[0]
        listed = sum(1 for key in keys if int(key[7:-5]) <= int(sequence))
        if data is not None and sha256_bytes(data) == digest and count == listed:
            return [key for key in keys if int(key[7:-5]) > int(sequence)], last
        db.execute("DELETE FROM ledger")
        db.execute("DELETE FROM aliases")
    return keys, ""


def behind(db: sqlite3.Connection, source: Source) -> str:
    """Return how the index differs from the ledger's end: `grown`, `changed`, or an empty string."""
    last = get_meta(db, "ledger")
    sequence, _, digest = last.partition(":")
    number = int(sequence or 0)
    wanted = [ledger_key(number), ledger_key(number + 1)] if number else [ledger_key(1)]
    found = [data for _, data, _ in source.read(wanted)]
    if number and (found[0] is None or sha256_bytes(found[0]) != digest):
        return "changed"
    return "grown" if found[-1] is not None else ""


def follow(db: sqlite3.Connection, source: Source) -> bool:
    """Take in what new ledger entries lead to; False if only a look at every key can tell what happened."""
    number = int(get_meta(db, "ledger").partition(":")[0] or 0)
    writer = Writer(db, fresh=False)
    while True:
        key = ledger_key(number + 1)
        data = next(source.read([key]))[1]
        if data is None:
            break
        number += 1
        try:
            entry = parse_entry(data, number)
        except RefusedError as error:
            writer.add_problem(key, str(error))
        else:
            if entry[1] not in ("release", "promote", "rollback", "key"):
                return False
            writer.add_entry(entry)
            if entry[1] == "release":
                _add_released(db, writer, source, entry[2], entry[3])
        set_meta(db, "ledger", f"{number}:{sha256_bytes(data)}")
    writer.finish()
    return True


def _add_released(db: sqlite3.Connection, writer: Writer, source: Source, task: str, version: int) -> None:
    """Add a release and the records that it names, with the locks that those name."""
    key = f"releases/{task}/{version}/manifest.json"
    if not KEYS["releases"].fullmatch(key):
        return
    ((_, data, _),) = source.read([key])
    try:
        records = parse_manifest(data, task, version).records if data is not None else {}
    except RefusedError:
        records = {}
    known = "SELECT 1 FROM records JOIN objects USING (id) WHERE sha256 = ? AND stored"
    new = [r for r in records.values() if not db.execute(known, (bytes.fromhex(r),)).fetchone()]
    writer.add(parse_chunk(source, "records", [f"records/{record}.json" for record in new]))
    writer.add(parse_chunk(source, "releases", [key]))
    writer.flush()
    missing = "SELECT DISTINCT lock FROM settings WHERE lock IS NOT NULL AND lock NOT IN (SELECT lock FROM packages)"
    locks = [f"locks/{lock}.txt" for (lock,) in db.execute(missing).fetchall()]
    writer.add(parse_chunk(source, "locks", locks))


def sync_folders(db: sqlite3.Connection, folders: Sequence[Path]) -> None:
    """Take in the outputs below `folders` and drop those that are gone."""
    found = dict(find_outputs(folders))
    if {folder: sha256_bytes(data) for folder, data in found.items()} == _places(db):
        return
    writer = Writer(db, fresh=False)
    db.execute("DELETE FROM places")
    for folder, data in found.items():
        chunk = Chunk()
        try:
            chunk.add_record(hashlib.sha256(data).digest(), parse_record(data))
        except RefusedError as error:
            writer.add_problem(f"{folder}/{RECORD}", str(error))
        else:
            db.execute("INSERT INTO places VALUES (?, ?)", (folder, writer.add_local(chunk)))
    writer.finish()
    _forget_records(db, [_record_key(blob) for (blob,) in db.execute(_LOST).fetchall()])


def folders_changed(db: sqlite3.Connection, folders: Sequence[Path]) -> bool:
    """Return whether the outputs below `folders` are others than the index has."""
    found = {folder: sha256_bytes(data) for folder, data in find_outputs(folders)}
    return found != _places(db)


def _places(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT folder, sha256 FROM places JOIN objects ON id = record")
    return {folder: blob.hex() for folder, blob in rows}


def find_outputs(folders: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Return each folder with a record below `folders`, and the record's bytes; hidden folders are work in progress."""
    found = []
    for folder in folders:
        for parent, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if not name.startswith("."))
            if RECORD in files:
                names.clear()
                try:
                    found.append((os.path.realpath(parent), read_file(f"{parent}/{RECORD}")))
                except OSError:
                    continue
    return found


def _forget_records(db: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Drop records from the store, and altogether unless a folder holds them too."""
    for key in keys:
        row = db.execute("SELECT id FROM objects WHERE sha256 = ?", (bytes.fromhex(_digest_in(key)),)).fetchone()
        if db.execute("SELECT 1 FROM places WHERE record = ?", row).fetchone():
            db.execute("UPDATE records SET stored = 0 WHERE id = ?", row)
        else:
            db.execute("DELETE FROM records WHERE id = ?", row)
            db.execute("DELETE FROM inputs WHERE record = ?", row)


def _forget_releases(db: sqlite3.Connection, keys: Iterable[str]) -> None:
    for key in keys:
        _, task, version, _ = key.split("/")
        named = "SELECT releases.id FROM releases JOIN names ON names.id = task WHERE text = ? AND version = ?"
        row = db.execute(named, (task, int(version))).fetchone()
        db.execute("DELETE FROM parts WHERE release = ?", row)
        db.execute("DELETE FROM releases WHERE id = ?", row)


def get_meta(db: sqlite3.Connection, name: str) -> str:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else ""


def set_meta(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def ledger_key(sequence: int) -> str:
    return f"ledger/{sequence:08d}.json"


def _digest_in(key: str) -> str:
    """Return the digest that a key is named after."""
    digest = key.partition("/")[2].partition(".")[0]
    assert is_sha256(digest)
    return digest


def _record_key(blob: bytes) -> str:
    return f"records/{blob.hex()}.json"
