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

from graftline.canonical import canonical_json
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.store import MissingError, Store

_ROW, _SUBJECT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Blocklist:
    """Hex digests of rows, and hex keyed hashes of persons' ids, sorted."""

    rows: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    def union(self, rows: Iterable[str], subjects: Iterable[str]) -> Blocklist:
        return Blocklist(tuple(sorted({*self.rows, *rows})), tuple(sorted({*self.subjects, *subjects})))


def read_blocklist(store: Store, task: str) -> Blocklist:
    """Return the store's list for `task`. Raises InputError if it is damaged: then nobody knows what is blocked."""
    return _read(store, task)[0]


def block(store: Store, task: str, rows: Iterable[str], subjects: Iterable[str]) -> None:
    """Add to the store's list, by compare-and-swap. Doing it again changes nothing."""
    while True:
        known, tag = _read(store, task)
        more = known.union(rows, subjects)
        if more == known or store.replace(_key(task), canonical_json(asdict(more)), tag):
            return


def block_in_contract(path: Path, rows: Iterable[str], subjects: Iterable[str]) -> bool:
    """Add to `erased` of a contract's YAML file, comments kept; return whether it changed."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    text = path.read_text()
    document = parse_yaml_for_update(text, path)
    listed = document.get("erased") or {}
    known = Blocklist(tuple(listed.get("rows", ())), tuple(listed.get("subjects", ())))
    more = known.union(rows, subjects)
    if (set(more.rows), set(more.subjects)) == (set(known.rows), set(known.subjects)):
        return False
    document["erased"] = {name: list(values) for name, values in asdict(more).items() if values}
    write_atomic(path, dumps_yaml(document).encode())
    return True


def _read(store: Store, task: str) -> tuple[Blocklist, str | None]:
    try:
        stored = store.get(_key(task))
    except MissingError:
        return Blocklist(), None
    try:
        value = json.loads(stored.data)
        found = Blocklist(tuple(value["rows"]), tuple(value["subjects"]))
        whole = all(map(_ROW.fullmatch, found.rows)) and all(map(_SUBJECT.fullmatch, found.subjects))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(store, task, repr(error)) from None
    if not whole:
        raise _damaged(store, task, "not digests")
    return found, stored.tag


def _key(task: str) -> str:
    return f"erased/{task}.json"


def _damaged(store: Store, task: str, why: str) -> InputError:
    return InputError(
        f"{store.url}/{_key(task)}", f"not a list of erased rows ({why})",
        fix="restore it from the receipts in erasures/: `graftline erase` wrote them",
    )  # fmt: skip
