"""Erasures: receipts that are signed and that the ledger names. What they cover is erased, and no fault; what they
say must stay gone, and blocked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graftline.audit.verify.records import read_sealed
from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.findings import Finding
from graftline.rows.blocklist import Blocklist

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState

PAYLOAD_TYPE = "application/vnd.graftline.erasure+json"
PLAN_TYPE = "application/vnd.graftline.erasure-plan+json"


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
        erased.findings += _verify_blocklists(inventory, ledger, erased)
        erased.findings += _verify_plans(inventory, ledger)
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


def _verify_blocklists(inventory: Inventory, ledger: LedgerState, erased: Erased) -> Iterator[Finding]:
    """Yield the lists of what must not come back that lack something, or hold what no receipt and no plan says."""
    planned = _planned(inventory, ledger)
    found = {match[1]: match[0] for match in inventory.of["blocklist"]}
    for task in sorted(erased.blocked.keys() - found.keys()):
        yield Finding(f"erased/{task}.json", "missing", f"{len(erased.blocked[task])} digests, by receipts", "nothing")
    for key, data in inventory.read_all(sorted(found.values())):
        task = key.removeprefix("erased/").removesuffix(".json")
        listed = _listed(data or b"")
        if listed is None:
            yield Finding(key, "tampered", "a list of erased rows", f"{(data or b'')[:80]!r}")
            continue
        want = erased.blocked[task]
        if lacking := want - listed:
            yield Finding(key, "tampered", f"{min(lacking)}, by a receipt", "not in the list", row=min(lacking))
        if extra := listed - want - planned:
            yield Finding(key, "unexpected", "digests that a receipt names", min(extra), row=min(extra))


def _listed(data: bytes) -> set[str] | None:
    try:
        value = json.loads(data)
        found = Blocklist(tuple(value["rows"]), tuple(value["subjects"]), value.get("key"))
        same = canonical_json(found.as_dict()) == data
        return {*found.rows, *found.subjects} if same else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _planned(inventory: Inventory, ledger: LedgerState) -> set[str]:
    """Return what erasures that are under way name: it is blocked before anything is removed."""
    found: set[str] = set()
    for key, data in inventory.read_all([match[0] for match in inventory.of["plan"]]):
        value, wrong = read_sealed(ledger, key, data or b"", PLAN_TYPE)
        try:
            found.update(() if wrong else map(str, [*value["digests"], *value["target"]]))
        except (KeyError, TypeError):
            continue
    return found


def _verify_plans(inventory: Inventory, ledger: LedgerState) -> Iterator[Finding]:
    """Yield the plans that nobody known signed, or that are none: an erasure would carry out what they say."""
    for key, data in inventory.read_all([match[0] for match in inventory.of["plan"]]):
        value, wrong = read_sealed(ledger, key, data or b"", PLAN_TYPE)
        if wrong:
            yield wrong
        elif not isinstance(value, dict) or key != f"erased/plans/{value.get('id')}.json":
            yield Finding(key, "tampered", "the plan of an erasure", f"{str(value)[:80]!r}")
