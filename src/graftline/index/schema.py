"""The tables. Digests are 32-byte blobs, once each, in `objects`; everything else refers to them by integer ids."""

from __future__ import annotations

VERSION = 4
"""Of this form; a database of another one is made again."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- Every digest that names a record, a content or an input. A record has its object's id.
CREATE TABLE objects (id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL);
CREATE TABLE kinds (id INTEGER PRIMARY KEY, component TEXT NOT NULL, task TEXT NOT NULL, name TEXT NOT NULL,
  UNIQUE (task, component, name));
-- What code ran in what: few, many records share one.
CREATE TABLE settings (id INTEGER PRIMARY KEY, code TEXT, dirty TEXT, lock TEXT, image TEXT,
  environment TEXT NOT NULL, key BLOB NOT NULL UNIQUE);
-- Parameters and lists of file names, once each; found by a digest of the text.
CREATE TABLE texts (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, text TEXT NOT NULL);
-- files: for n files n sha256, then n sizes of 8 bytes; layout: their names, a text.
CREATE TABLE records (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, content INTEGER NOT NULL,
  setting INTEGER NOT NULL, parameters INTEGER NOT NULL, metrics TEXT NOT NULL, layout INTEGER NOT NULL,
  files BLOB NOT NULL, stored INTEGER NOT NULL);
-- What a record was made from. made_by: the object of its record, which the store may lack.
CREATE TABLE inputs (record INTEGER NOT NULL, place INTEGER NOT NULL, name INTEGER NOT NULL, content INTEGER NOT NULL,
  made_by INTEGER, annotations TEXT, layout INTEGER, files BLOB, PRIMARY KEY (record, place)) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE places (folder TEXT PRIMARY KEY, record INTEGER NOT NULL) WITHOUT ROWID;
-- Which record (or, negative, which release) lists a file whose sha256 begins so: 512 to a page when made at once,
-- one a row when added later. head: the first 8 bytes, less 2^63.
CREATE TABLE file_pages (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
  heads BLOB NOT NULL, holders BLOB NOT NULL);
CREATE TABLE file_heads (head INTEGER NOT NULL, holder INTEGER NOT NULL, PRIMARY KEY (head, holder)) WITHOUT ROWID;
CREATE TABLE releases (id INTEGER PRIMARY KEY, task INTEGER NOT NULL, version INTEGER NOT NULL,
  manifest BLOB NOT NULL, content INTEGER NOT NULL, created TEXT NOT NULL, metrics TEXT NOT NULL,
  publication TEXT NOT NULL, layout INTEGER NOT NULL, files BLOB NOT NULL);
CREATE TABLE parts (record INTEGER NOT NULL, release INTEGER NOT NULL, name INTEGER NOT NULL);
CREATE TABLE ledger (sequence INTEGER PRIMARY KEY, event INTEGER NOT NULL, task INTEGER NOT NULL,
  version INTEGER NOT NULL, alias INTEGER, at TEXT NOT NULL, actor INTEGER NOT NULL, key INTEGER);
CREATE TABLE aliases (task INTEGER NOT NULL, alias INTEGER NOT NULL, version INTEGER NOT NULL,
  sequence INTEGER NOT NULL, PRIMARY KEY (task, alias)) WITHOUT ROWID;
CREATE TABLE packages (lock TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
  PRIMARY KEY (lock, name)) WITHOUT ROWID;
CREATE TABLE problems (key TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""

# Made after the rows: sorting once takes less time than keeping order. Those of what only records write come first,
# while other processes still parse the rest.
RECORD_INDEXES = (
    "CREATE INDEX records_content ON records (content)",
    "CREATE INDEX records_setting ON records (setting)",
    "CREATE INDEX inputs_content ON inputs (content, made_by, name)",
    "CREATE INDEX inputs_made_by ON inputs (made_by, name) WHERE made_by IS NOT NULL",
    "CREATE INDEX settings_code ON settings (code)",
    "CREATE INDEX settings_lock ON settings (lock)",
    "CREATE INDEX settings_image ON settings (image)",
)
OTHER_INDEXES = (
    "CREATE UNIQUE INDEX objects_sha256 ON objects (sha256)",
    "CREATE INDEX places_record ON places (record)",
    "CREATE INDEX file_pages_last ON file_pages (last)",
    "CREATE UNIQUE INDEX releases_version ON releases (task, version)",
    "CREATE INDEX releases_content ON releases (content)",
    "CREATE UNIQUE INDEX releases_manifest ON releases (manifest)",
    "CREATE INDEX releases_created ON releases (created)",
    "CREATE INDEX parts_record ON parts (record, release)",
    "CREATE INDEX parts_release ON parts (release)",
    "CREATE INDEX ledger_task ON ledger (task, version)",
    "CREATE INDEX packages_name ON packages (name, version)",
)
