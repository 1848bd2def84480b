"""Erasures: receipts that are signed and that the ledger names. What they cover is erased, and no fault; what they
say must stay gone, and blocked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graftline.audit.verify_findings import Finding
from graftline.audit.verify_records import read_sealed
from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.rows.blocklist import Blocklist

if TYPE_CHECKING:
    from graftline.audit.verify_inventory import Inventory
    from graftline.audit.verify_ledger import LedgerState

PAYLOAD_TYPE = "application/vnd.graftline.erasure+json"


@dataclass
class Erased:
    """What receipts cover."""

    by_place: dict[str, str] = field(default_factory=dict)
    """The receipt's key, by the store key of what was removed."""
    blocked: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of each task, the digests of rows and subjects that must not come back."""
    findings: list[Finding] = field(default_factory=list)

    def apply(self, finding: Finding) -> Finding:
        """Return the finding, as `erased` if it is of something missing that a receipt covers."""
        receipt = self.by_place.get(finding.place)
        if finding.kind != "missing" or receipt is None:
            return finding
        return replace(finding, kind="erased", actual=f"removed, by {receipt}")


def verify_erasures(inventory: Inventory, ledger: LedgerState, only: tuple[str, int] | None) -> Erased:
    """Return what was erased, with what is wrong with receipts and with what they say; of one release, or of all."""
    erased = Erased()
    entries = [e for e in ledger.entries.values() if e.event == "erase"]
    named = {str(e.detail.get("receipt")): e.digest for e in entries}
    stored = [match[0] for match in inventory.of["erasure"]]
    for key in sorted(named.keys() - set(stored)):
        erased.findings.append(Finding(key, "missing", f"sha256 {named[key]}, by the ledger", "nothing"))
    under_way = {match[1] for match in inventory.of["plan"]}
    for key, data in inventory.read_all(stored):
        digest, identity = sha256_bytes(data or b""), key.rpartition("/")[2].removesuffix(".json")
        if key in named and named[key] != digest:
            erased.findings.append(Finding(key, "tampered", f"sha256 {named[key]}", f"sha256 {digest}"))
            continue
        if key not in named and ledger.whole and identity not in under_way:
            erased.findings.append(Finding(key, "unsigned", "an entry of the ledger that names it", "none"))
        value, wrong = read_sealed(ledger, key, data or b"", PAYLOAD_TYPE)
        erased.findings += [wrong] if wrong else _note(erased, inventory, key, value, only)
    if only is None:
        erased.findings += _verify_blocklists(inventory, erased)
        erased.findings += _verify_plans(inventory)
    return erased


def _note(
    erased: Erased, inventory: Inventory, key: str, value: Any, only: tuple[str, int] | None
) -> Iterator[Finding]:
    """Note what a receipt covers; yield what it removed and is there again, and what it says."""
    try:
        releases = [(str(release["task"]), int(release["version"])) for release in value["releases"]]
        places = [str(place) for place in value["objects_of_store"]]
        digests = [*value["digests"], *(value["target"] if value["kind"] == "subject" else [])]
        for task in value["tasks"]:
            erased.blocked[str(task)].update(map(str, digests))
        rows = len(value["digests"])
    except (KeyError, TypeError, ValueError) as error:
        yield Finding(key, "tampered", "a receipt of an erasure", f"none ({error!r})")
        return
    for place in places:
        erased.by_place[place] = key
        if place in inventory.keys:
            yield Finding(place, "unexpected", f"nothing: removed, by {key}", "it is there")
    if only is None or only in releases:
        of = ", ".join(f"{task}@{version}" for task, version in releases) or "no release"
        yield Finding(key, "erased", actual=f"removed from what {of} was made of", row=f"{rows} erased")


def _verify_blocklists(inventory: Inventory, erased: Erased) -> Iterator[Finding]:
    """Yield the lists of what must not come back that lack something, or hold what no receipt and no plan says."""
    planned = _planned(inventory)
    found = {match[1]: match[0] for match in inventory.of["blocklist"]}
    for task in sorted(erased.blocked.keys() - found.keys()):
        yield Finding(
            f"erased/{task}.json", "missing", f"{len(erased.blocked[task])} digests, by receipts", "nothing"
        )
    for key, data in inventory.read_all(sorted(found.values())):
        task = key.removeprefix("erased/").removesuffix(".json")
        listed = _listed(data or b"")
        if listed is None:
            yield Finding(key, "tampered", "a list of erased rows", f"{(data or b'')[:80]!r}")
            continue
        want = erased.blocked[task]
        if lacking := want - listed:
            yield Finding(
                key, "tampered", f"{min(lacking)}, by a receipt", "not in the list", row=min(lacking)
            )
        if extra := listed - want - planned:
            yield Finding(key, "unexpected", "digests that a receipt names", min(extra), row=min(extra))


def _listed(data: bytes) -> set[str] | None:
    try:
        value = json.loads(data)
        found = Blocklist(tuple(value["rows"]), tuple(value["subjects"]))
        same = canonical_json({"rows": list(found.rows), "subjects": list(found.subjects)}) == data
        return {*found.rows, *found.subjects} if same else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _planned(inventory: Inventory) -> set[str]:
    """Return what erasures that are under way name: it is blocked before anything is removed."""
    found: set[str] = set()
    for _, data in inventory.read_all([match[0] for match in inventory.of["plan"]]):
        try:
            value = json.loads(data or b"")
            found.update(map(str, [*value["digests"], *value["target"]]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _verify_plans(inventory: Inventory) -> Iterator[Finding]:
    for key, data in inventory.read_all([match[0] for match in inventory.of["plan"]]):
        try:
            value = json.loads(data or b"")
            whole = canonical_json(value) == data and key == f"erased/plans/{value['id']}.json"
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            yield Finding(key, "tampered", "the plan of an erasure", f"{(data or b'')[:80]!r}")
