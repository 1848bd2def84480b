"""The lineage of releases as nodes in groups: what the graph page lists, and its script draws.

A node is in the group of the first release that uses it, a release's group in one of twenty: what later releases share
with it is an arrow between their groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from graftline.records.model import COMPARED
from graftline.ui.addresses import impact_page, record_page, release_page

if TYPE_CHECKING:
    from graftline.index.rows import IndexedRecord, IndexedRelease, Input

MOST = 2000
"""Nodes on one page."""
DECADE = 20
"""Versions in a group of groups, once there are more than that."""


@dataclass
class Node:
    """One box."""

    id: str
    kind: Literal["raw", "made", "release"]
    label: str
    what: str
    digest: str
    page: str | None
    inputs: list[str] = field(default_factory=list)
    """Ids of the nodes that it was made of."""
    compared: list[str] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    """Names of the groups around it, outermost first."""
    tags: str = ""
    """Aliases that point at it."""
    facts: list[tuple[str, str]] = field(default_factory=list)


def build(releases: Sequence[IndexedRelease], records: Iterable[IndexedRecord]) -> list[Node]:
    """Return the nodes of `records` and `releases` and of the inputs from outside; inputs precede what uses them."""
    return _Builder(releases, records).nodes()


class _Builder:
    def __init__(self, releases: Sequence[IndexedRelease], records: Iterable[IndexedRecord]) -> None:
        self._releases = sorted(releases, key=lambda release: (release.task, release.version))
        self._parts: dict[str, list[IndexedRelease]] = {}
        for release in self._releases:
            for sha256 in release.records.values():
                self._parts.setdefault(sha256, []).append(release)
        # By their first release: the script keeps this order where it can.
        first = {sha256: number for number, sha256 in enumerate(self._parts)}
        ordered = sorted(records, key=lambda record: first.get(record.sha256, -1))
        self._records = {record.sha256: record for record in ordered}
        self._groups = _groups(self._releases, {record.task for record in self._records.values()})
        self._ids: dict[str, str] = {}

    def nodes(self) -> list[Node]:
        outside = list(self._outside())
        made = [self._made(record) for record in self._records.values()]
        released = [self._released(release) for release in self._releases]
        by_content = {release.content: self._id(release.manifest) for release in self._releases}
        for record, node in zip(self._records.values(), made, strict=True):
            node.inputs, node.compared = self._inputs(record, by_content)
        return outside + made + released

    def _id(self, key: str) -> str:
        return self._ids.setdefault(key, f"n{len(self._ids)}")

    def _inputs(self, record: IndexedRecord, by_content: dict[str, str]) -> tuple[list[str], list[str]]:
        made_of = [self._id(_key(given)) for given in record.inputs if given.name != COMPARED]
        compared = [
            by_content[given.sha256] for given in record.inputs if given.name == COMPARED and given.sha256 in by_content
        ]
        return made_of, compared

    def _made(self, record: IndexedRecord) -> Node:
        commit = record.commit and f"{record.commit}{' and changes' if record.dirty else ''}"
        facts = [("record", record.sha256), ("commit", commit), ("image", record.image)]
        return Node(
            self._id(record.sha256),
            "made",
            record.name,
            f"{record.component}, {record.task}",
            record.content,
            record_page(record.sha256),
            group=self._group(self._parts.get(record.sha256, []), record.task),
            facts=[(name, value) for name, value in facts if value],
        )

    def _released(self, release: IndexedRelease) -> Node:
        inputs = [self._id(sha256) for sha256 in self._ends(release)]
        return Node(
            self._id(release.manifest),
            "release",
            release.reference,
            f"release, {release.created[:10]}",
            release.content,
            release_page(release.task, release.version),
            inputs,
            group=self._group([release], release.task),
            tags=", ".join(release.aliases),
            facts=[("manifest", release.manifest)],
        )

    def _ends(self, release: IndexedRelease) -> list[str]:
        """Return the parts that no other part was made of: the rest is seen behind those. Measuring makes nothing."""
        parts = [self._records[sha256] for sha256 in release.records.values() if sha256 in self._records]
        used = {given.record for part in parts if part.component != "evaluate" for given in part.inputs}
        return [part.sha256 for part in parts if part.sha256 not in used]

    def _outside(self) -> Iterator[Node]:
        """Yield a node for each input that no record at hand made."""
        users: dict[str, list[tuple[Input, IndexedRecord]]] = {}
        for record in self._records.values():
            for given in record.inputs:
                if given.name != COMPARED and (given.record is None or given.record not in self._records):
                    users.setdefault(_key(given), []).append((given, record))
        for key, uses in users.items():
            given, record = uses[0]
            releases = {release.reference: release for _, user in uses for release in self._parts.get(user.sha256, [])}
            what = "from outside" if given.record is None else "its record is not in the store"
            facts = [
                (name, str(given.annotations[name])) for name in ("source", "licence") if name in given.annotations
            ]
            files = [("file", f"{file.path} {file.sha256}") for file in given.files[:5]]
            yield Node(
                self._id(key),
                "raw",
                given.name,
                f"{what}, {record.task}",
                given.sha256,
                impact_page(given.sha256),
                group=self._group(list(releases.values()), record.task),
                facts=facts + files,
            )

    def _group(self, releases: list[IndexedRelease], task: str) -> list[str]:
        """Return the groups of what these releases use: those of the first of its own task, or else of the first."""
        own = [release for release in releases if release.task == task] or releases
        if own:
            return self._groups[min(own, key=lambda release: (release.task, release.version)).reference]
        return self._groups.get(task, [])


def _key(given: Input) -> str:
    return given.record or f"outside {given.sha256}"


def _groups(releases: Sequence[IndexedRelease], tasks: set[str]) -> dict[str, list[str]]:
    """Return the groups of each release by its reference, and of each task by its name."""
    several = len(tasks | {release.task for release in releases}) > 1
    found = {task: [task] if several else [] for task in tasks}
    versions: dict[str, list[int]] = {}
    for release in releases:
        versions.setdefault(release.task, []).append(release.version)
    for release in releases:
        path = [release.task] if several else []
        if len(versions[release.task]) > DECADE:
            first = (release.version - 1) // DECADE * DECADE + 1
            path = [*path, f"{release.task}@{first} to {first + DECADE - 1}"]
        found[release.reference] = [*path, release.reference]
    return found
