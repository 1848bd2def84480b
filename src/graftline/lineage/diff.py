"""What made two models differ: the smallest set of causes, each at the step where it begins.

A step matters only if its output's content differs and if that output went into something that differs. What such a
step was given itself (raw data, parameters, code, lock, image, environment) is a cause where it changed; what it was
given by another step is not, for that step's own causes are listed already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.lineage.diff_code import changed_files, packages_of, runs_in_a_step
from graftline.lineage.diff_metrics import MetricChange, metric_changes
from graftline.lineage.diff_rows import compare_rows
from graftline.records.model import COMPARED, LOCK, RAW, ROOTSTOCK, Record, flat
from graftline.releases.catalogue import resolve
from graftline.releases.chain import ReleaseChain, read_release_chain

if TYPE_CHECKING:
    from graftline.store import Store

Rows = Callable[[str, str], dict[str, int] | None]
"""Given the content digests of two datasets, how many rows differ in which way; None without a row index of both."""


@dataclass(frozen=True)
class Change:
    """One thing before and after; None where it is not there."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Cause:
    """A change that no other step explains."""

    step: str
    """The output of the step where it begins, such as `trunk`."""
    kind: str
    """data, code, packages, image, parameter, environment, base checkpoint, step, or unexplained."""
    name: str
    before: Any
    after: Any
    details: tuple[Change, ...] = ()
    """Files, packages or rows."""
    note: str = ""
    """What could not be told, and why."""


@dataclass(frozen=True)
class Difference:
    """Two models side by side."""

    a: str
    b: str
    causes: tuple[Cause, ...]
    metrics: tuple[MetricChange, ...]
    notes: tuple[str, ...]
    """What changed and is no cause, and what else to know."""


def diff(store: Store, a: str, b: str, repository: Path) -> Difference:
    """Return how the releases `a` and `b` (task@version or task@alias) differ.

    Args:
        store: which has both.
        a: the first.
        b: the second.
        repository: where to look for the commits; it need not have them, or be a repository.

    Raises:
        InputError: there is no such release, or one of its records is missing or damaged.
    """
    one, two = read_release_chain(store, resolve(store, a)), read_release_chain(store, resolve(store, b))
    return compare(
        one,
        two,
        rows=lambda before, after: compare_rows(store, before, after),
        packages=lambda digest: packages_of(store, digest),
        files=lambda before, after: changed_files(repository, before, after),
    )


def compare(
    a: ReleaseChain,
    b: ReleaseChain,
    *,
    rows: Rows = lambda before, after: None,
    packages: Callable[[str], dict[str, str] | None] = lambda digest: None,
    files: Callable[[str, str], list[tuple[str, str]] | None] = lambda before, after: None,
) -> Difference:
    """Return how two chains differ.

    Args:
        a: the first.
        b: the second.
        rows: see Rows.
        packages: the versions by name in the lock of a digest; None if it is not at hand.
        files: (status, path) of the files that two commits differ in; None if they are not at hand.
    """
    walk = _Walk(a, b, rows, packages, files)
    causes = _without_repeats(walk.causes())
    changes = {detail.name for cause in causes if cause.kind == "packages" for detail in cause.details}
    causes = [c for c in causes if not (c.kind == "environment" and c.name in changes)]
    metrics, note = metric_changes(a, b)
    equal = a.release.digest == b.release.digest
    same = ["the same bits: every file of the two releases is equal"] if equal else []
    notes = (*same, *dict.fromkeys(walk.notes), *note)
    return Difference(a.release.name, b.release.name, tuple(causes), metrics, notes)


def _without_repeats(causes: Iterator[Cause]) -> list[Cause]:
    """Return each cause once, at the first step: causes come in the order in which steps run."""
    found: dict[str, Cause] = {}
    for cause in causes:
        found.setdefault(repr((cause.kind, cause.name, cause.before, cause.after)), cause)
    return list(found.values())


class _Walk:
    """Goes through two chains side by side, from what was released down to where differences begin."""

    def __init__(self, a: ReleaseChain, b: ReleaseChain, rows: Rows, packages: Any, files: Any) -> None:
        self._a, self._b, self._rows, self._packages, self._files = a, b, rows, packages, files
        self.notes: list[str] = []
        self._seen: set[tuple[str, str]] = set()

    def causes(self) -> Iterator[Cause]:
        a, b = self._a.parts, self._b.parts
        for name in dict.fromkeys([*a, *b]):
            yield from self._visit(name, a.get(name), b.get(name))

    def _visit(self, name: str, a: Record | None, b: Record | None) -> Iterator[Cause]:
        """Yield the causes behind two records of the same role, inputs first."""
        pair = (a.sha256 if a else "", b.sha256 if b else "")
        if pair[0] == pair[1] or pair in self._seen:
            return
        self._seen.add(pair)
        if a is None or b is None:
            yield Cause(name, "step", name, a and a.content, b and b.content)
            return
        if a.content == b.content:
            return
        for given in dict.fromkeys(given.name for given in [*a.inputs, *b.inputs]):
            yield from self._visit(given, _maker(self._a, a, given), _maker(self._b, b, given))
        yield from self._own(a, b)

    def _own(self, a: Record, b: Record) -> Iterator[Cause]:
        """Yield what changed in what two steps were given from outside, or that nothing did."""
        causes = [
            *self._outside(a, b),
            *_flat_causes("parameter", b.name, flat(a.parameters), flat(b.parameters)),
            *self._code(a, b),
            *self._lock(a, b),
            *_flat_causes("image", b.name, {"image": a.image}, {"image": b.image}),
            *_flat_causes("environment", b.name, flat(a.environment), flat(b.environment)),
        ]
        yield from causes
        inherited = {i.name: i.sha256 for i in a.inputs} != {i.name: i.sha256 for i in b.inputs}
        if not causes and not inherited:
            note = "the same inputs, parameters, code and environment gave other bits"
            yield Cause(b.name, "unexplained", "output", a.content, b.content, note=note)

    def _outside(self, a: Record, b: Record) -> Iterator[Cause]:
        """Yield inputs that no step made: raw data, the contract, a corpus, a base checkpoint."""
        for name in dict.fromkeys(given.name for given in [*a.inputs, *b.inputs]):
            one, two = a.input(name), b.input(name)
            if name == COMPARED or any(given and given.record for given in (one, two)):
                continue
            if (one and one.sha256) == (two and two.sha256):
                continue
            kind = "base checkpoint" if name == ROOTSTOCK else "data"
            files = _by_key(*({f.path: f.sha256 for f in given.files} for given in (one, two))) if one and two else []
            cause = Cause(b.name, kind, name, one and one.sha256, two and two.sha256, tuple(files))
            yield self._with_rows(cause, a, b) if name == RAW else cause

    def _with_rows(self, cause: Cause, a: Record, b: Record) -> Cause:
        rows = self._rows(a.content, b.content)
        if rows is None:
            return replace(cause, note="no row index of both data sets is at hand: digests only")
        changed = (Change(how, 0, count) for how, count in rows.items())
        return replace(cause, details=(*changed, *cause.details))

    def _code(self, a: Record, b: Record) -> Iterator[Cause]:
        if (a.commit, a.dirty) == (b.commit, b.dirty):
            return
        files = self._files(a.commit, b.commit) if a.commit and b.commit and a.commit != b.commit else None
        before, after = _revision(a), _revision(b)
        if files is None:
            known = a.commit and b.commit and a.commit != b.commit
            note = "the commits are not in this repository: no list of files" if known else ""
            yield Cause(b.name, "code", "commit", before, after, note=note)
            return
        running = [(status, path) for status, path in files if runs_in_a_step(path)]
        if not running and a.dirty == b.dirty:
            self.notes.append(
                f"the commits {before} and {after} differ in {len(files)} files, none of which runs in a step"
            )
            return
        details = tuple(Change(path, *_STATUS.get(status, ("there", "changed"))) for status, path in running)
        yield Cause(b.name, "code", "commit", before, after, details)

    def _lock(self, a: Record, b: Record) -> Iterator[Cause]:
        if a.lock == b.lock:
            return
        one = self._packages(a.lock) if a.lock else None
        two = self._packages(b.lock) if b.lock else None
        if one is None or two is None:
            note = "a lock is not in the store: digests only"
            yield Cause(b.name, "packages", LOCK, a.lock, b.lock, note=note)
            return
        changes = _by_key(one, two)
        if changes:
            yield Cause(b.name, "packages", LOCK, a.lock, b.lock, tuple(changes))
        else:
            self.notes.append("the locks differ in comments only")


def _maker(chain: ReleaseChain, record: Record, name: str) -> Record | None:
    """Return the record of what made an input."""
    given = record.input(name)
    return chain.records.get(given.record) if given and given.record else None


_STATUS = {"A": (None, "added"), "D": ("there", None), "M": ("there", "changed")}


def _by_key(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    return [Change(key, a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _flat_causes(kind: str, step: str, a: dict[str, Any], b: dict[str, Any]) -> list[Cause]:
    return [Cause(step, kind, change.name, change.before, change.after) for change in _by_key(a, b)]


def _revision(step: Record) -> str | None:
    if step.commit is None:
        return f"dirty {step.dirty}" if step.dirty else None
    return f"{step.commit} (dirty {step.dirty})" if step.dirty else step.commit
