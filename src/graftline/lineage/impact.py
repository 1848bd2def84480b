"""What something reached: a file, a digest, a row, a person, a commit, an image, a package; through every step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.digests import digest_files, list_files, sha256_file
from graftline.errors import InputError
from graftline.index.queries import Index
from graftline.index.rows import FileHolder, Match, Reached
from graftline.lineage.trace import one_match
from graftline.records.model import COMPARED

if TYPE_CHECKING:
    from graftline.rows.finding import RowHit

LIMIT = 20
"""Records of each kind, and releases, that are listed unless more are asked for. The counts are complete."""
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:==([A-Za-z0-9][A-Za-z0-9.!+_-]*))?")


@dataclass(frozen=True)
class Impact:
    """What was reached, the beginning included."""

    subject: str
    """What was asked for."""
    matches: tuple[Match, ...]
    """What that is."""
    starts: tuple[str, ...]
    """The records where it enters, sorted."""
    reached: Reached
    holders: tuple[FileHolder, ...] = ()
    """Of a file: the outputs and the raw data that hold it."""
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of rows: how many are in each split, by the dataset's content."""
    notes: tuple[str, ...] = ()
    """What this answer does not cover."""

    def splits_of(self, content: str, inputs: Iterable[str]) -> tuple[str, ...]:
        """Return the splits of the rows in an output: of its own content, or of the inputs that it was made from."""
        found = {split for of in (content, *inputs) for split in self.splits.get(of, {})}
        return tuple(sorted(found))


def of_path(index: Index, path: Path, *, limit: int | None = LIMIT) -> Impact:
    """Return what a file, or all the files of a folder, reached. Raises InputError if the index knows none of it."""
    if not path.is_dir():
        digest = sha256_file(path)
        if not index.match(digest):
            raise InputError(path, f"nothing in {index.store.url} has its sha256, {digest}")
        return of_digest(index, digest, limit=limit, subject=str(path))
    files = list_files(path)
    whole = digest_files(files)
    if index.match(whole):
        return of_digest(index, whole, limit=limit, subject=str(path))
    found = {file.sha256: index.holders(file.sha256) for file in files}
    holders = [holder for of in found.values() for holder in of]
    unknown = [file.path for file in files if not found[file.sha256]]
    if not holders:
        raise InputError(path, f"nothing in {index.store.url} was made from any of its {len(files)} files")
    notes = (f"unknown here: {len(unknown)} of {len(files)} files, such as {unknown[0]}",) if unknown else ()
    matches = tuple(Match("file", sha256) for sha256, of in found.items() if of)
    return _impact(index, str(path), matches, {h.record for h in holders}, limit, holders=tuple(holders), notes=notes)


def of_digest(index: Index, digest: str, *, limit: int | None = LIMIT, subject: str | None = None) -> Impact:
    """Return what a digest, or the one that begins so, reached: a file, data, an output, a record, an image, a lock.

    Raises:
        InputError: nothing has it, or several do.
    """
    digest = digest.lower().removeprefix("sha256:")
    if not _DIGEST.fullmatch(digest):
        raise InputError(
            f"'{subject or digest}'",
            "neither a file here nor a digest",
            expected="a path, or at least 8 hex digits of a sha256",
        )
    kinds = ("record", "content", "input", "file", "release", "image", "lock", "commit")
    found = index.match(digest)
    sha256 = one_match(index, digest, kinds, found).sha256
    matches = tuple(found)
    starts: set[str] = set()
    holders: list[FileHolder] = []
    for match in matches:
        if match.kind == "file":
            holders = index.holders(sha256)
            starts |= {holder.record for holder in holders}
            starts |= {r for release in index.releases_with_file(sha256) for r in _parts(release.records)}
        else:
            starts |= set(_starts(index, match))
    return _impact(index, subject or digest, matches, starts, limit, holders=tuple(holders))


def _starts(index: Index, match: Match) -> Iterable[str]:
    """Return the records where what is matched enters."""
    sha256 = match.sha256
    if match.kind == "record":
        return [sha256]
    if match.kind in ("content", "input"):
        # also what names it without a record, or by a record that the store lacks
        names = index.dependents(sha256, without=COMPARED)
        return [*index.records_with_content(sha256), *names]
    if match.kind == "release":
        whole = index.release_with_manifest(sha256)
        releases = [whole] if whole else index.releases_with_content(sha256)
        return [record for release in releases for record in _parts(release.records)]
    if match.kind == "image":
        return index.records_of_image(sha256)
    return index.records_of_lock(sha256) if match.kind == "lock" else index.records_of_commit(sha256)


def _parts(records: Mapping[str, str]) -> list[str]:
    """Return the records that a release itself is: its model, and what measured it."""
    return [record for name, record in records.items() if name in ("model", "evaluation")] or list(records.values())


def of_commit(index: Index, commit: str, *, limit: int | None = LIMIT) -> Impact:
    """Return what a commit made (at least 7 hex digits). Raises InputError if it made nothing, or several begin so."""
    commit = commit.lower()
    if not _COMMIT.fullmatch(commit):
        raise InputError(f"commit '{commit}'", "not a commit", expected="at least 7 hex digits")
    starts = index.records_of_commit(commit)
    commits = sorted({str(record.commit) for record in index.records(starts)}) if len(commit) < 40 else [commit]
    if not starts:
        raise InputError(f"commit {commit}", f"no record in {index.store.url} was made by it")
    if len(commits) > 1:
        raise InputError(f"commit {commit}", f"{len(commits)} commits begin so", fix="give more digits")
    return _impact(index, commit, (Match("commit", commits[0]),), starts, limit)


def of_image(index: Index, image: str, *, limit: int | None = LIMIT) -> Impact:
    """Return what was made in a container image, by its digest. Raises InputError if it is none, or nothing was."""
    digest = image.lower().rpartition("@")[2].removeprefix("sha256:")
    if not _DIGEST.fullmatch(digest):
        raise InputError(
            f"image '{image}'", "no digest", expected="8 to 64 hex digits of its sha256: a tag can mean any image"
        )
    match = one_match(index, digest, ("image",))
    return _impact(index, image, (match,), index.records_of_image(match.sha256), limit)


def of_package(index: Index, package: str, *, limit: int | None = LIMIT) -> Impact:
    """Return what was made with `name==version`, or any version of `name`. Raises InputError if no lock has it."""
    parsed = _PACKAGE.fullmatch(package)
    if parsed is None:
        raise InputError(f"package '{package}'", "not a package", expected="NAME==VERSION, or NAME")
    locks = index.locks_with(parsed[1], parsed[2])
    missing = index.locks_missing()
    notes = (f"not covered: {len(missing)} locks whose text the store lacks, such as {missing[0]}",) if missing else ()
    if not locks:
        raise InputError(f"package {package}", f"no lock in {index.store.url} pins it", fix="; ".join(notes))
    starts = [record for lock in locks for record in index.records_of_lock(lock)]
    return _impact(index, package, tuple(Match("lock", lock) for lock in locks), starts, limit, notes=notes)


def of_rows(index: Index, subject: str, hits: Iterable[RowHit], *, limit: int | None = LIMIT) -> Impact:
    """Return what rows reached, given their places from the row index, by split. Raises InputError for no place."""
    splits: dict[str, dict[str, int]] = {}
    for hit in hits:
        of = splits.setdefault(hit.dataset, {})
        of[hit.split] = of.get(hit.split, 0) + 1
    if not splits:
        raise InputError(subject, f"no row of it in the datasets of {index.store.url}")
    starts = [record for content in splits for record in _starts(index, Match("content", content))]
    matches = tuple(Match("content", content) for content in sorted(splits))
    return _impact(index, subject, matches, starts, limit, splits=splits)


def _impact(
    index: Index,
    subject: str,
    matches: tuple[Match, ...],
    starts: Iterable[str],
    limit: int | None,
    *,
    holders: tuple[FileHolder, ...] = (),
    splits: Mapping[str, Mapping[str, int]] | None = None,
    notes: tuple[str, ...] = (),
) -> Impact:
    entered = tuple(sorted(set(starts)))
    reached = index.reached(entered, limit=limit)
    return Impact(subject, matches, entered, reached, holders, splits or {}, notes)
