"""What made this model: every step back to the raw files, and who or what asked for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftline.digests import RECORD, sha256_bytes
from graftline.errors import InputError
from graftline.index.parsing import RefusedError, check_record, parse_record
from graftline.index.queries import Index
from graftline.index.reaching import in_order
from graftline.index.rows import AliasChange, IndexedRecord, IndexedRelease, Match
from graftline.index.selecting import as_indexed
from graftline.index.sources import read_file
from graftline.lineage.run import RunHistory, read_run
from graftline.records.folder import read_execution
from graftline.records.model import COMPARED

_DIGEST = re.compile(r"[0-9a-fA-F]{8,64}")
_SHOWN = 5
"""Candidates that an error names."""


@dataclass(frozen=True)
class Trace:
    """A model and all that it was made from."""

    subject: str
    """What was asked for."""
    release: IndexedRelease | None
    history: tuple[AliasChange, ...]
    """The ledger's entries about the release."""
    run: RunHistory | None
    """The run that published it; None for a publication outside a run."""
    asked: tuple[str, ...]
    """The records asked for; of a release, its parts."""
    steps: tuple[IndexedRecord, ...]
    """Each comes after what it was made from."""
    missing: tuple[str, ...]
    """Records that a step names and that neither the store nor a folder has, or that the index had to leave out."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why the index left a record out that the store has, by record."""
    compared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Releases that a step was compared with, by content."""
    keyids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys under which the store holds a signature, by record. `graftline verify` checks them."""
    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """When, where and under which engine a step ran, by record; known for local folders only."""

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits of all steps, sorted; `+dirty` where the work tree differed."""
        found = {f"{r.commit}{'+dirty' if r.dirty else ''}" for r in self.steps if r.commit}
        return tuple(sorted(found))


def trace(index: Index, model: str) -> Trace:
    """Return what made `model`: a task, task@alias, task@version, a local folder, or a digest of a record or content.

    Raises:
        InputError: it names nothing, several things, or something that was not made here.
    """
    if (Path(model) / RECORD).is_file():
        return _of_folder(index, Path(model))
    if _DIGEST.fullmatch(model) and model not in index.tasks():
        return _of_digest(index, model)
    return _of_release(index, model, index.resolve(model))


def _of_release(index: Index, subject: str, release: IndexedRelease) -> Trace:
    steps = index.ancestors(release.records.values())
    named = tuple(release.records.values())
    run = read_run(index.store, release.run) if release.run else None
    history = tuple(index.history(release.task, version=release.version))
    return _completed(index, subject, steps, named, release=release, history=history, run=run)


def _of_digest(index: Index, digest: str) -> Trace:
    match = one_match(index, digest, ("record", "content", "release", "file"))
    if match.kind == "release":
        whole = index.release_with_manifest(match.sha256)
        releases = [whole] if whole else index.releases_with_content(match.sha256)
        return _of_release(index, digest, releases[-1])
    if match.kind == "record":
        records = [match.sha256]
    elif match.kind == "content":
        records = index.records_with_content(match.sha256)
    else:
        records = sorted({h.record for h in index.holders(match.sha256) if h.input is None})
        if len(records) != 1:
            raise InputError(
                f"digest {digest}",
                f"a file that {len(records)} outputs hold",
                fix=f"ask `graftline impact {digest}` what it reached",
            )
    return _completed(index, digest, index.ancestors(records), tuple(records))


def _of_folder(index: Index, folder: Path) -> Trace:
    """Trace an output that may not be published; what it names lies in folders beside it, or is in the index."""
    known: dict[str, IndexedRecord] = {}
    beside = {r.sha256: r for path in folder.resolve().parent.iterdir() if (r := _local(path)) is not None}
    record = _local(folder)
    if record is None:
        raise InputError(folder / RECORD, "not a record", fix="run the stage that makes it again")
    waiting = [record]
    while waiting:
        record_now = waiting.pop()
        if record_now.sha256 in known:
            continue
        known[record_now.sha256] = record_now
        for made_by in (i.record for i in record_now.inputs if i.record and i.record not in known):
            if made_by in beside:
                waiting.append(beside[made_by])
            else:
                waiting += index.ancestors([made_by])
    return _completed(index, str(folder), in_order(known.values()), (record.sha256,))


def _local(folder: Path) -> IndexedRecord | None:
    try:
        data = read_file(str(folder / RECORD))
        parsed = parse_record(data)
        check_record(parsed)
        return as_indexed(sha256_bytes(data), parsed, str(folder))
    except (OSError, RefusedError):
        return None


def _completed(
    index: Index,
    subject: str,
    steps: list[IndexedRecord],
    asked: tuple[str, ...],
    *,
    release: IndexedRelease | None = None,
    history: tuple[AliasChange, ...] = (),
    run: RunHistory | None = None,
) -> Trace:
    known = {record.sha256 for record in steps}
    inputs = [i for record in steps for i in record.inputs]
    champions = dict.fromkeys(i.sha256 for i in inputs if i.name == COMPARED)
    missing = tuple(sorted({*asked, *(i.record for i in inputs if i.record)} - known))
    problems = {problem.key: problem.reason for problem in index.problems()} if missing else {}
    return Trace(
        subject,
        release,
        history,
        run,
        asked,
        tuple(steps),
        missing=missing,
        left_out={r: problems[key] for r in missing if (key := f"records/{r}.json") in problems},
        compared={c: tuple(r.reference for r in index.releases_with_content(c)) for c in champions},
        keyids={record.sha256: index.keyids(record.sha256) for record in steps},
        executions={r.sha256: _execution(r) for r in steps if r.folder},
    )


def _execution(record: IndexedRecord) -> dict[str, Any]:
    try:
        return read_execution(Path(str(record.folder)))
    except (InputError, OSError, AttributeError):
        return {}


def one_match(index: Index, digest: str, kinds: tuple[str, ...], found: list[Match] | None = None) -> Match:
    """Return the one thing of the first of `kinds` that a digest or its beginning names.

    Args:
        index: where to look.
        digest: 8 to 64 hex digits.
        kinds: the best one first.
        found: what `index.match` has found already.

    Raises:
        InputError: nothing is named, several digests begin so, or what it names is of another kind.
    """
    found = index.match(digest) if found is None else found
    whole = sorted({match.sha256 for match in found})
    if not whole:
        raise InputError(
            f"digest {digest}",
            f"nothing in {index.store.url} has it",
            fix="if it was made lately without being published, run `graftline index`",
        )
    if len(whole) > 1:
        shown = ", ".join(f"{m.sha256[:16]}... ({m.kind})" for m in found[:_SHOWN])
        raise InputError(f"digest {digest}", f"{len(whole)} digests begin so: {shown}", fix="give more digits")
    fitting = [match for kind in kinds for match in found if match.kind == kind]
    if not fitting:
        raise InputError(
            f"digest {digest}",
            f"it names {_article(found[0].kind)}",
            expected="a model, or another output",
            fix="ask `graftline impact` what it reached",
        )
    return fitting[0]


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
