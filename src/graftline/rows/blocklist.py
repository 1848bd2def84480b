"""What must not be ingested again: per task, in the store (`erased/<task>.json`) and in the contract (`erased:`).

The store's list reaches every checkout and every run on a cluster; the contract's reaches a checkout that is given
another store, and its history is in git. validate honours both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.rows.subjects import check_value, key_path
from graftline.store import MissingError, Store

_BATCH = 500_000
_ROW, _SUBJECT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")
_CHECK = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Blocklist:
    """Hex digests of rows, and hex keyed hashes of persons' ids, sorted."""

    rows: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    key: str | None = None
    """The check value of the subjects' key; None without subjects, and in lists that earlier versions wrote."""

    def union(self, rows: Iterable[str], subjects: Iterable[str], key: str | None = None) -> Blocklist:
        """Return this list and more; `key` is the check value of the new subjects'.

        Of subjects that an earlier version listed without a key, none is claimed.
        """
        return Blocklist(
            tuple(sorted({*self.rows, *rows})),
            tuple(sorted({*self.subjects, *subjects})),
            self.key if self.subjects else key,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the list as stored."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_blocklist(store: Store, task: str) -> Blocklist:
    """Return the store's list for `task`. Raises InputError if it is damaged: then nobody knows what is blocked."""
    return _read(store, task)[0]


def block(store: Store, task: str, rows: Iterable[str], subjects: Iterable[str], *, key: bytes | None = None) -> None:
    """Add to the store's list, by compare-and-swap. Doing it again changes nothing.

    Args:
        key: of the subjects' hashes. Raises InputError if it is not that of those in the list.
    """
    while True:
        known, tag = _read(store, task)
        if key:
            check_key(known, key, f"{store.url}/{_key(task)}")
        more = known.union(rows, subjects, check_value(key) if key else None)
        if more == known or store.replace(_key(task), canonical_json(more.as_dict()), tag):
            return


def check_key(blocklist: Blocklist, key: bytes, where: object) -> None:
    """Raise InputError if the list's subjects were hashed with another key: none of them would be recognized.

    `where` names the list in the error.
    """
    if blocklist.subjects and blocklist.key not in (None, found := check_value(key)):
        raise InputError(
            key_path(),
            f"another key for subjects (check value {found})",
            expected=f"the one that persons were erased with (check value {blocklist.key} in {where})",
            fix="copy that file here from the machine that erased, or mount it (docs/cluster.md)",
        )


def check_all(store: Store, key: bytes) -> None:
    """Raise InputError if persons were erased from any task with another key: this one finds nobody."""
    for name in store.list("erased/"):
        if name.count("/") == 1:
            task = name.removeprefix("erased/").removesuffix(".json")
            check_key(read_blocklist(store, task), key, f"{store.url}/{name}")


def has_subjects(rows_parquet: Path) -> bool:
    """Return whether a dataset has a rows.parquet that says whose its rows are."""
    import pyarrow.parquet as pq

    return rows_parquet.is_file() and "subject" in pq.read_schema(rows_parquet).names


def count_blocked(rows_parquet: Path, blocklist: Blocklist) -> int:
    """Return how many rows of a dataset's rows.parquet are on the list, by themselves or by their subject."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    listed = {"digest": blocklist.rows, "subject": blocklist.subjects}
    count = 0
    with pq.ParquetFile(rows_parquet, pre_buffer=False) as file:
        columns = [name for name, values in listed.items() if values and name in file.schema_arrow.names]
        if not columns:
            return 0
        for batch in file.iter_batches(_BATCH, columns=columns):
            found = pa.array([False] * batch.num_rows)
            for name in columns:
                values = pa.array([bytes.fromhex(value) for value in listed[name]], batch.column(name).type)
                found = pc.or_(found, pc.is_in(batch.column(name), values))
            count += found.true_count
    return count


def block_in_contract(path: Path, rows: Iterable[str], subjects: Iterable[str], *, key: bytes | None = None) -> bool:
    """Add to `erased` of a contract's YAML file, comments kept; return whether it changed.

    Args:
        key: of the subjects' hashes. Raises InputError if it is not that of those in the list.
    """
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    text = path.read_text(encoding="utf-8")
    document = parse_yaml_for_update(text, path)
    listed = document.get("erased") or {}
    known = Blocklist(tuple(listed.get("rows", ())), tuple(listed.get("subjects", ())), listed.get("key"))
    if key:
        check_key(known, key, path)
    more = known.union(rows, subjects, check_value(key) if key else None)
    if more == known.union((), ()):
        return False
    document["erased"] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in more.as_dict().items() if value
    }
    write_atomic(path, dumps_yaml(document).encode())
    return True


def _read(store: Store, task: str) -> tuple[Blocklist, str | None]:
    try:
        stored = store.get(_key(task))
    except MissingError:
        return Blocklist(), None
    try:
        value = json.loads(stored.data)
        found = Blocklist(tuple(value["rows"]), tuple(value["subjects"]), value.get("key"))
        whole = all(map(_ROW.fullmatch, found.rows)) and all(map(_SUBJECT.fullmatch, found.subjects))
        whole = whole and (found.key is None or _CHECK.fullmatch(found.key) is not None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(store, task, repr(error)) from None
    if not whole:
        raise _damaged(store, task, "not digests")
    return found, stored.tag


def _key(task: str) -> str:
    return f"erased/{task}.json"


def _damaged(store: Store, task: str, why: str) -> InputError:
    return InputError(
        f"{store.url}/{_key(task)}",
        f"not a list of erased rows ({why})",
        fix="restore it from the receipts in erasures/: `graftline erase` wrote them",
    )
