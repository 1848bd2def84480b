"""The row index: each task's list, the signed index of each segment that it names, and the shards that this names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.audit.verify.records import read_sealed
from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.findings import Finding
from graftline.rows.segments import KINDS, PAYLOAD_TYPE, Kind, Segment, merged_name, read_list
from graftline.rows.shards import WHOLE
from graftline.store import MissingError

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState
    from graftline.store import Store

_SEGMENT = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"(?:all|[0-9a-f]{1,8})-([0-9a-f]{16})\.bin")


@dataclass
class RowIndexes:
    """What the row index must hold."""

    shards: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The sha256 of each shard by key, and how the digests in it begin."""
    findings: list[Finding] = field(default_factory=list)
    covered: dict[Kind, set[str]] = field(default_factory=dict)
    """The content digests of the datasets that the lists name."""

    def may_be_unfinished(self, kind: Kind, segment: str, recorded: frozenset[str]) -> bool:
        """Return whether a segment that no list names hides nothing: a publisher may have been killed before that.

        A publisher stores the shards of `rows`, their index, the list, the same of `subjects`, and then the records.
        So each recorded dataset is covered, and one whose rows are covered may yet lack its subjects until then.
        """
        if kind == "rows":
            return recorded <= self.covered[kind]
        return segment in self.covered["rows"] - recorded


def verify_rows(inventory: Inventory, ledger: LedgerState, recorded: frozenset[str], *, only: bool) -> RowIndexes:
    """Return what is wrong with the row index but for its shards.

    Args:
        recorded: content digests of the datasets of which there are records.
        only: whether to look at the index of these alone.
    """
    found, store = RowIndexes(), inventory.store
    keys = {match[0] for match in inventory.of["rows"]}
    for kind in KINDS:
        _verify_kind(store, kind, {key for key in keys if key.startswith(f"{kind}/")}, ledger, found, recorded, only)
    return found


def _verify_kind(
    store: Store,
    kind: Kind,
    keys: set[str],
    ledger: LedgerState,
    found: RowIndexes,
    recorded: frozenset[str],
    only: bool,
) -> None:
    lists = {key for key in keys if key.startswith(f"{kind}/tasks/") and key.count("/") == 2}
    by_segment: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys - lists:
        by_segment[key.split("/")[1]].add(key)
    covered: set[str] = set()
    damaged = False
    for key in sorted(lists):
        task = key.rpartition("/")[2].removesuffix(".json")
        segments = _read_list(store, kind, key, task, found)
        damaged = damaged or segments is None
        for segment in segments or []:
            there = by_segment.pop(segment.name, set())
            wanted = not only or recorded & set(segment.datasets)
            if not wanted or _verify_segment(store, kind, key, task, segment, there, ledger, found):
                covered |= set(segment.datasets)
    found.covered[kind] = set() if damaged else covered
    if only or damaged:
        return
    unfinished = {name for name in by_segment if found.may_be_unfinished(kind, name, recorded)}
    left = {name for name in unfinished if _left_over(store, kind, name, by_segment[name], ledger)}
    rest = {name: there for name, there in by_segment.items() if name not in left}
    found.findings += _unlisted(store, kind, rest, covered, ledger)


def _read_list(store: Store, kind: Kind, key: str, task: str, found: RowIndexes) -> list[Segment] | None:
    try:
        segments = read_list(store, kind, task)[0]
        same = canonical_json([asdict(segment) for segment in segments]) == store.get(key).data
    except (InputError, ValueError, TypeError, AttributeError, RecursionError, MissingError) as error:
        found.findings.append(Finding(key, "tampered", "a list of segments", getattr(error, "found", str(error))))
        return None
    if not same:
        found.findings.append(Finding(key, "tampered", "a list of segments", "one that is not in canonical form"))
        return None
    return segments


def _verify_segment(
    store: Store,
    kind: Kind,
    list_key: str,
    task: str,
    segment: Segment,
    keys: set[str],
    ledger: LedgerState,
    found: RowIndexes,
) -> bool:
    """Note what is wrong with a segment's index, and what its shards must be; return whether list and index agree."""
    folder = f"{kind}/{segment.name}"
    place = f"{folder}/index.json"
    value, digest, wrong = _read_index(store, place, ledger)
    if wrong is not None:
        found.findings.append(wrong)
    if value is None:
        return False
    said = {
        "kind": kind,
        "task": task,
        "datasets": list(segment.datasets),
        "rows": segment.rows,
        "digits": segment.digits,
        "width": segment.layout.width,
    }
    signed = {name: part for name, part in value.items() if name not in ("shards", "made_of")}
    if signed != said or not _fits(value, kind, segment.name) or digest != segment.index:
        place = list_key if _fits(value, kind, segment.name) else place
        found.findings.append(Finding(place, "tampered", f"{segment.index}: {said}"[:300], f"{digest}: {signed}"[:300]))
        return False
    named = {f"{folder}/{name}-{sha[:16]}.bin": (name, sha) for name, sha in value["shards"].items()}
    for key in sorted(named.keys() - keys):
        name, sha = named[key]
        found.findings.append(Finding(key, "missing", f"sha256 {sha}", "nothing", row=rows_of(name)))
    for key in sorted(keys - named.keys() - {place}):
        found.findings.append(Finding(key, "unexpected", f"a shard that {place} names", "there"))
    found.shards |= {key: (sha, rows_of(name)) for key, (name, sha) in named.items() if key in keys}
    return True


def _fits(value: dict[str, Any], kind: Kind, name: str) -> bool:
    """Return whether an index is of the segment of this name: that of its dataset, or made of those of several."""
    datasets = value.get("datasets")
    if value.get("kind") != kind or not isinstance(datasets, list) or not datasets:
        return False
    if len(datasets) == 1:
        return bool(name == datasets[0])
    made_of = value.get("made_of")
    if isinstance(made_of, list):
        return name == merged_name(datasets, made_of)
    return name == sha256_bytes(canonical_json(datasets))  # as earlier versions named it


def _read_index(store: Store, place: str, ledger: LedgerState) -> tuple[dict[str, Any] | None, str, Finding | None]:
    """Return an index's value, its sha256 and what is wrong with it."""
    try:
        data = store.get(place).data
    except MissingError:
        return None, "", Finding(place, "missing", "the index of the segment", "nothing")
    value, wrong = read_sealed(ledger, place, data, PAYLOAD_TYPE)
    shards = value.get("shards") if isinstance(value, dict) else None
    whole = isinstance(shards, dict) and all(isinstance(part, str) for pair in shards.items() for part in pair)
    if not whole:
        return None, "", wrong or Finding(place, "tampered", "an index of shards", "not one")
    return value, sha256_bytes(data), wrong


def _left_over(store: Store, kind: Kind, name: str, keys: set[str], ledger: LedgerState) -> bool:
    """Return whether each shard is what its name says and the index, which is stored after them, what was signed."""
    index = f"{kind}/{name}/index.json"
    if index in keys:
        value, _, wrong = _read_index(store, index, ledger)
        if value is None or wrong is not None or not _fits(value, kind, name):
            return False
    for key in keys - {index}:
        match = _SHARD.fullmatch(key.rpartition("/")[2])
        if match is None or not sha256_bytes(store.get(key).data).startswith(match[1]):
            return False
    return _SEGMENT.fullmatch(name) is not None


def _unlisted(
    store: Store, kind: Kind, segments: dict[str, set[str]], covered: set[str], ledger: LedgerState
) -> Iterator[Finding]:
    """Yield segments that no list names, unless they were merged into one that is listed: these are merely not deleted
    yet."""
    for name, keys in sorted(segments.items()):
        value, _, _ = _read_index(store, f"{kind}/{name}/index.json", ledger)
        if value is None:
            yield Finding(min(keys), "unexpected", "a segment that a list of the row index names", "there")
        elif not set(value["datasets"]) <= covered:
            task = value.get("task", "")
            yield Finding(f"{kind}/tasks/{task}.json", "missing", f"the segment {kind}/{name}", "not in the list")


def rows_of(shard: str) -> str:
    """Return which rows a shard is about, by its name."""
    return "all" if shard == WHOLE else f"digests that begin with {shard}"
