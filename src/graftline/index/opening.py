"""Open the index of a store: made if it is missing, of an old form or damaged, and brought up to date otherwise.

Processes share it. Whoever changes it holds a lock of the kernel's beside it; a new one is made aside and renamed
into place, so that a reader has a whole one, the old or the new. A process that is killed leaves a journal, which the
next one to open the database rolls back.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from graftline.cache import cache_folder
from graftline.digests import sha256_bytes
from graftline.index import building
from graftline.index.queries import Index
from graftline.index.schema import VERSION
from graftline.index.sources import Source, source_of
from graftline.store import Store

SMALL = 20_000
"""Records up to which a directory is looked through whenever it has changed."""
_WAIT_SECONDS = 60.0
_MAPPED = 2**31 - 65536
"""Bytes of the database, at most, that are read in place; SQLite's own limit."""
_FILLING = (
    "page_size = 16384",
    "journal_mode = OFF",
    "synchronous = OFF",
    "locking_mode = EXCLUSIVE",
    "cache_size = -300000",
    "temp_store = MEMORY",
)
"""For a database that nobody sees yet: if its making is broken off, it is thrown away."""


def index_path(store: Store, folders: Sequence[Path] = ()) -> Path:
    """Return where the index of `store` (and of the outputs in `folders`) lies."""
    name = "\0".join([store.url, *sorted(str(folder.absolute()) for folder in folders)])
    return cache_folder() / "index" / f"{sha256_bytes(os.fsencode(name))}.sqlite"


def open_index(
    store: Store,
    *,
    folders: Sequence[Path] = (),
    full: bool = False,
    rebuild: bool = False,
    progress: Callable[[int, int], None] | None = None,
    source: Source | None = None,
) -> Index:
    """Return the index of `store` and of the outputs below `folders`, up to date with the ledger.

    Args:
        store: whose records to index.
        folders: folders of outputs, such as `outputs/`: each folder below with a record.json is taken in.
        full: look at every key, not only at what the ledger leads to.
        rebuild: make it anew.
        progress: called now and then with the number of objects read and the number known to be there.
        source: how to read the store; found by its kind if left out.
    """
    opening = _Opening(store, source or source_of(store), [folder.absolute() for folder in folders], progress)
    db = opening.made_anew() if rebuild else opening.up_to_date(full=full)
    return Index(store, db, opening.made_anew)


class _Opening:
    """One store's index on this disk."""

    def __init__(self, store: Store, source: Source, folders: list[Path], progress: building.Progress | None) -> None:
        self._source, self._folders, self._progress = source, folders, progress
        self._path = index_path(store, folders)
        self._parts = self._path.with_name(f".parts-{self._path.name}")
        self._watched = store.local_path("records")
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def up_to_date(self, *, full: bool) -> sqlite3.Connection:
        try:
            db = self._connected()
            if db is not None and not full and not self._is_behind(db):
                return db
        except sqlite3.DatabaseError:
            db = None
        if db is not None:
            db.close()
        with self._locked():
            return self._updated(full=full)

    def made_anew(self) -> sqlite3.Connection:
        with self._locked():
            return self._rebuilt()

    def _updated(self, *, full: bool) -> sqlite3.Connection:
        """Bring the database up to date, or make it; the lock is held, so what another process did is seen."""
        db = None
        try:
            db = self._connected()
            if db is None:
                return self._rebuilt()
            db.execute("BEGIN IMMEDIATE")
            self._update(db, full=full)
            db.execute("COMMIT")
        except sqlite3.DatabaseError:
            if db is not None:
                db.close()
            return self._rebuilt()
        except BaseException:
            if db is not None:
                db.close()
            raise
        return db

    def _update(self, db: sqlite3.Connection, *, full: bool) -> None:
        watched = self._mark()
        state = building.behind(db, self._source)
        full = full or state == "changed" or self._is_shaken(db, watched)
        if full or (state == "grown" and not building.follow(db, self._source)):
            building.look(db, self._source, self._parts, self._progress)
        building.sync_folders(db, self._folders)
        building.set_meta(db, "watched", watched)

    def _is_behind(self, db: sqlite3.Connection) -> bool:
        return bool(
            building.behind(db, self._source)
            or self._is_shaken(db, self._mark())
            or building.folders_changed(db, self._folders)
        )

    def _is_shaken(self, db: sqlite3.Connection, watched: str) -> bool:
        """Return whether a small directory has got or lost records that perhaps no ledger entry tells of."""
        if watched == building.get_meta(db, "watched"):
            return False
        return len(db.execute("SELECT 1 FROM records LIMIT ?", (SMALL,)).fetchall()) < SMALL

    def _mark(self) -> str:
        """Return what changes when a name enters or leaves the folder of records."""
        if self._watched is None:
            return ""
        try:
            return str(self._watched.stat().st_mtime_ns)
        except OSError:
            return ""

    def _rebuilt(self) -> sqlite3.Connection:
        aside, watched = self._path.with_name(f".aside-{self._path.name}"), self._mark()
        aside.unlink(missing_ok=True)  # of one that was killed: the lock is held, so nobody is at it
        os.close(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with closing(sqlite3.connect(aside, isolation_level=None)) as db:
                for pragma in _FILLING:
                    db.execute(f"PRAGMA {pragma}")
                building.build(db, self._source, self._parts, self._progress)
                db.execute("BEGIN")
                building.sync_folders(db, self._folders)
                building.set_meta(db, "watched", watched)
                db.execute("COMMIT")
            # First the old one: its journal must never be taken for the new one's.
            for old in (self._path, self._path.with_name(f"{self._path.name}-journal")):
                old.unlink(missing_ok=True)
            aside.rename(self._path)
        finally:
            aside.unlink(missing_ok=True)
        made = self._connected()
        assert made is not None
        return made

    def _connected(self) -> sqlite3.Connection | None:
        """Return a connection; None if there is no database of this form."""
        if not self._path.is_file():
            return None
        db = sqlite3.connect(self._path, isolation_level=None, timeout=_WAIT_SECONDS)
        try:
            db.execute("PRAGMA cache_size = -65536")
            # Pages without a copy of each. Nobody shortens the file: a new one is made aside and renamed.
            db.execute(f"PRAGMA mmap_size = {_MAPPED}")
            db.execute("PRAGMA synchronous = NORMAL")
            if building.get_meta(db, "version") == str(VERSION):
                return db
        except sqlite3.DatabaseError:
            pass
        db.close()
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of this index; the kernel frees it when the process dies."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
