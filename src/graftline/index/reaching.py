"""Up and down from records: what they were made from, and what was made from them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from graftline.index.rows import IndexedRecord, Reached
from graftline.index.selecting import Query, records_by_id, releases_by_id
from graftline.records.model import COMPARED

# CROSS JOIN: the tables in this order. There are no statistics, since gathering them would take longer than the index.
# An input that names a record leads to that record alone. One that names none, such as a base checkpoint that is an
# earlier output, leads to every record of its content.
_UP = """
WITH RECURSIVE up (id) AS (
  SELECT value FROM json_each(?1) UNION
  SELECT i.made_by FROM up JOIN inputs i ON i.record = up.id
    WHERE i.made_by IS NOT NULL AND i.name IS NOT ?2 UNION
  SELECT r.id FROM up JOIN inputs i ON i.record = up.id JOIN records r ON r.content = i.content
    WHERE i.made_by IS NULL AND i.name IS NOT ?2)
SELECT id FROM up
"""
_DOWN = """
WITH RECURSIVE down (id) AS (
  SELECT value FROM json_each(?1) UNION
  SELECT i.record FROM down JOIN inputs i ON i.made_by = down.id WHERE i.name IS NOT ?2 UNION
  SELECT i.record FROM down JOIN records r ON r.id = down.id JOIN inputs i ON i.content = r.content
    WHERE i.made_by IS NULL AND i.name IS NOT ?2)
"""


def ancestors(query: Query, ids: list[int]) -> list[IndexedRecord]:
    """Return the records and all that they were made from, sorted so that each comes after what it is made from."""
    numbers = [number for (number,) in query(_UP, (json.dumps(ids), _compared(query)))]
    return in_order(records_by_id(query, numbers).values())


def in_order(records: Iterable[IndexedRecord]) -> list[IndexedRecord]:
    """Return records so that each comes after those that it names as inputs; otherwise by task, name and sha256."""
    left = {r.sha256: r for r in sorted(records, key=lambda r: (r.task, r.name, r.sha256))}
    done: dict[str, IndexedRecord] = {}
    while left:
        ready = [r for r in left.values() if not any(i.record in left for i in r.inputs if i.record != r.sha256)]
        for record in ready or list(left.values()):  # a circle takes a broken hash: shown rather than followed
            done[record.sha256] = left.pop(record.sha256)
    return list(done.values())


def descendants(query: Query, ids: list[int]) -> list[str]:
    """Return the digests of the records and of all that were made from them, sorted."""
    selected = "SELECT o.sha256 FROM down JOIN records USING (id) JOIN objects o USING (id) ORDER BY 1"
    statement = f"{_DOWN} {selected}"
    return [blob.hex() for (blob,) in query(statement, (json.dumps(ids), _compared(query)))]


def reached(query: Query, ids: list[int], limit: int | None) -> Reached:
    """Return what was made from the records: complete counts, and of the rest at most `limit` of each kind."""
    query("CREATE TEMP TABLE IF NOT EXISTS reached (id INTEGER PRIMARY KEY)", ())
    query("DELETE FROM temp.reached", ())
    query(f"INSERT INTO temp.reached {_DOWN} SELECT id FROM down", (json.dumps(ids), _compared(query)))  # noqa: S608  (a query of ours)
    counts = query(
        """SELECT k.name, k.task, k.id, count(*) FROM temp.reached d CROSS JOIN records r ON r.id = d.id
        CROSS JOIN kinds k ON k.id = r.kind GROUP BY k.id ORDER BY 1, 2""",
        (),
    )
    by_kind: dict[tuple[str, str], int] = {}
    for name, task, _, count in counts:
        by_kind[name, task] = by_kind.get((name, task), 0) + count
    records = records_by_id(query, _some_records(query, limit)).values()
    numbers = [row[0] for row in query(_RELEASED, (-1 if limit is None else limit,))]
    releases = releases_by_id(query, numbers).values()
    return Reached(
        by_kind,
        sorted(records, key=lambda r: (r.task, r.component, r.sha256)),
        query("SELECT count(DISTINCT release) FROM temp.reached CROSS JOIN parts ON record = id", ())[0][0],
        sorted(releases, key=lambda r: (r.task, r.version)),
        {(task, alias): version for task, alias, version in query(_POINTED, ())},
    )


_RELEASED = """
SELECT DISTINCT r.id FROM temp.reached d CROSS JOIN parts p ON p.record = d.id CROSS JOIN releases r ON r.id = p.release
  LEFT JOIN aliases a ON a.task = r.task AND a.version = r.version
ORDER BY a.version IS NULL, r.version DESC, r.task LIMIT ?
"""
_POINTED = """
SELECT DISTINCT t.text, n.text, a.version FROM aliases a CROSS JOIN releases r
    ON r.task = a.task AND r.version = a.version
  CROSS JOIN parts p ON p.release = r.id CROSS JOIN temp.reached d ON d.id = p.record
  JOIN names t ON t.id = a.task JOIN names n ON n.id = a.alias
ORDER BY 1, 2
"""


def _some_records(query: Query, limit: int | None) -> list[int]:
    if limit is None:
        return [number for (number,) in query("SELECT id FROM temp.reached", ())]
    names = [name for (name,) in query("SELECT DISTINCT name FROM kinds ORDER BY 1", ())]
    some = """SELECT d.id FROM temp.reached d CROSS JOIN records r ON r.id = d.id CROSS JOIN kinds k ON k.id = r.kind
        WHERE k.name = ? LIMIT ?"""
    return [number for name in names for (number,) in query(some, (name, limit))]


def _compared(query: Query) -> int | None:
    rows = query("SELECT id FROM names WHERE text = ?", (COMPARED,))
    return rows[0][0] if rows else None
