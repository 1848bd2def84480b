"""Releases: immutable published versions of a model, and the aliases that point at them.

    releases/<task>/<n>/claim.json      who took version n, before anything is uploaded
    releases/<task>/<n>/<file>          the files, and records/<name>.json
    releases/<task>/<n>/manifest.json   last: without it the version does not exist
    records/<sha256>.json               each record once more, found by its digest
    aliases/<task>/<alias>.json         where an alias points; the ledger decides, this follows

A publisher that is killed anywhere and run again continues under its publication id and releases once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import FileDigest, digest_files, sha256_bytes, sha256_file
from graftline.durable import fsync_tree, write_atomic
from graftline.errors import GraftlineError, InputError
from graftline.ledger import Entry, Fact, Ledger, read_entry, utc_now
from graftline.store import MissingError, Store, check_key

CHAMPION = "champion"
CLAIM, MANIFEST, RECORDS = "claim.json", "manifest.json", "records/"
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TASK = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION_KEY = re.compile(r"releases/([^/]+)/([1-9][0-9]*)/(claim|manifest)\.json")


@dataclass(frozen=True)
class Release:
    """A published version as its manifest describes it; its files are not verified before `fetch`."""

    task: str
    version: int
    path: str
    """Its directory, or its s3 url."""
    digest: str
    """The content digest: equal for two releases of the same bits."""
    created: str
    """ISO 8601, UTC."""
    aliases: tuple[str, ...]
    """The aliases that point at it, sorted."""
    manifest: str
    """The sha256 of manifest.json: of this release and no other."""

    @property
    def name(self) -> str:
        return f"{self.task}@{self.version}"


@dataclass(frozen=True)
class Draft:
    """What is to be released, and under which publication."""

    task: str
    files: Mapping[str, Path]
    """The local file of each path in the release."""
    records: Mapping[str, bytes]
    """The bytes of each record by name (dataset, trunk, ...); they do not enter the content digest."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    compared_with: Mapping[str, Any] | None = None
    """The champion at evaluation: `version` and `digest`, or None if there was none."""
    alias: str = CHAMPION

    def listing(self) -> list[FileDigest]:
        """Return path, size and sha256 of each file, records not among them, sorted by path."""
        return sorted(
            FileDigest(check_key(n), p.stat().st_size, sha256_file(p)) for n, p in self.files.items()
        )

    def record_listing(self) -> list[FileDigest]:
        return sorted(
            FileDigest(check_key(f"{RECORDS}{name}.json"), len(data), sha256_bytes(data))
            for name, data in self.records.items()
        )


@dataclass(frozen=True)
class Publication:
    """The identity of one act of publishing; every try of it carries the same id."""

    id: str
    fresh: bool = False
    """Whether no earlier try can exist, so that none needs to be looked for."""


@dataclass(frozen=True)
class Receipt:
    """How a publication ended."""

    release: Release
    alias: str
    promoted: bool
    """Whether the alias points at this release now."""
    previous_champion: Release | None
    """Where the alias pointed before; None if nowhere."""
    champion_changed: bool
    """Whether the champion when publishing is not the one that the model was compared with."""


# Reading


def list_releases(store: Store, task: str | None = None) -> list[Release]:
    """Return the releases of `task`, or of all, oldest first. Raises InputError for a damaged manifest."""
    if task is not None:
        _check_task(task)
    keys = store.list(f"releases/{task}/" if task else "releases/")
    found = [match for key in keys if (match := _VERSION_KEY.fullmatch(key)) and match[3] == "manifest"]
    aliases = _aliases(store, task)
    releases = [_release(store, match[1], int(match[2]), aliases) for match in found]
    return sorted(releases, key=lambda r: (r.version,) if task else (r.created, r.task, r.version))


def resolve(store: Store, reference: str) -> Release:
    """Return the release that `task@version`, `task@alias` or `task` (its champion) names.

    Raises:
        InputError: there is none; the line lists what there is. Or its manifest or alias was changed.
    """
    task, at, selector = reference.partition("@")
    _check_task(task)
    selector = selector if at else CHAMPION
    if selector.isdecimal():
        version = int(selector)
    elif ALIAS.fullmatch(selector):
        pointed = _alias(store, task, selector)
        if pointed is None:
            raise _no_release(store, task, f"no alias '{selector}'")
        version = pointed
    else:
        raise InputError(f"release '{reference}'", f"'{selector}'", expected="task@version or task@alias")
    try:
        return _release(store, task, version, _aliases(store, task))
    except MissingError:
        raise _no_release(store, task, f"no version {version}") from None


def champion(store: Store, task: str) -> Release | None:
    """Return the release that `task@champion` names, or None if nothing was promoted yet."""
    return None if _alias(store, task, CHAMPION) is None else resolve(store, task)


def fetch(store: Store, release: Release) -> Path:
    """Return a local folder with the release's files, each of which was just compared with the manifest.

    A directory store is read in place; for S3 the files are downloaded to a cache ($GRAFTLINE_CACHE, or
    ~/.cache/graftline) by manifest digest.

    Raises:
        InputError: a file is extra, missing or different; the line says which, what was expected and found.
    """
    files = _manifest_files(_manifest(store, release.task, release.version, expected=release.manifest))
    folder = store.local_path(_key(release.task, release.version))
    if folder is not None:
        _check_folder(folder, files, also=frozenset({CLAIM, MANIFEST}))
        return folder
    return _fetch_to_cache(store, release, files)


# Publishing


def open_publication(work: Path, draft: Draft) -> Publication:
    """Return the publication for `draft`: the one that an earlier, killed try in `work` began, or a new one.

    $GRAFTLINE_RUN_KEY, if set, is its id: an orchestrator that retries elsewhere finds no folder `work`.
    """
    if key := os.environ.get("GRAFTLINE_RUN_KEY"):
        return Publication(key)
    path, payload = work / "publication.json", _payload(draft)
    try:
        known = json.loads(path.read_bytes())
        if known["payload"] == payload:
            return Publication(str(known["id"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # none, or one of another format: what it began stays invisible
    publication = Publication(uuid.uuid4().hex, fresh=True)
    write_atomic(path, canonical_json({"id": publication.id, "payload": payload}))
    return publication


def publish(store: Store, draft: Draft, publication: Publication) -> Receipt:
    """Release `draft` as a new version, enter it in the ledger, and promote it unless a later version is
    champion.

    Doing it again with the same publication changes nothing and returns the same release.

    Raises:
        InputError: the publication was used for other content, or a file's name cannot be a key.
    """
    _check_task(draft.task)
    _check_alias(draft.alias)
    before = _pointed(store, draft.task, draft.alias)
    version = _claim(store, draft, publication)
    manifest, created = _upload(store, draft, publication, version, before)
    ledger = Ledger(store)
    ledger.append(
        lambda _: Fact("release", draft.task, version, manifest, f"{publication.id}:release:{draft.task}")
    )
    previous = _promote(ledger, draft, version, manifest, publication)
    current = _follow(store, ledger, draft.task, draft.alias)
    release = _release(store, draft.task, version, _aliases(store, draft.task))
    return Receipt(
        release=release, alias=draft.alias, promoted=current is not None and current.version == version,
        previous_champion=None if previous is None else _release(store, draft.task, previous.version, {}),
        champion_changed=_changed(draft.compared_with, created["champion_when_published"]),
    )  # fmt: skip


def rollback(store: Store, task: str, version: int, alias: str = CHAMPION) -> tuple[Release, bool]:
    """Point `alias` at `version` again; return the release, and False if the alias was there already.

    Nothing is deleted; the ledger gets one entry.

    Raises:
        InputError: there is no such release; the line lists which there are.
    """
    _check_alias(alias)
    release = resolve(store, f"{task}@{version}")
    identity = f"{uuid.uuid4().hex}:rollback:{task}:{alias}"

    def decide(ledger: Ledger) -> Fact | None:
        current = ledger.current(task, alias)
        if current is not None and current.version == version and current.id != identity:
            return None
        return Fact("rollback", task, version, release.manifest, identity, alias)

    ledger = Ledger(store)
    entry = ledger.append(decide)
    _follow(store, ledger, task, alias)
    return resolve(store, f"{task}@{version}"), entry is not None


def _claim(store: Store, draft: Draft, publication: Publication) -> int:
    """Return the version that belongs to the publication: the one it claimed before, or the next free one."""
    payload = _payload(draft)
    keys = store.list(f"releases/{draft.task}/")
    claimed = sorted({int(match[2]) for key in keys if (match := _VERSION_KEY.fullmatch(key))})
    for version in [] if publication.fresh else reversed(claimed):
        claim = _read_json(store, f"{_key(draft.task, version)}/{CLAIM}")
        if claim.get("publication") == publication.id:
            if claim.get("payload") != payload:
                raise InputError(
                    f"publication {publication.id}", f"it claimed {draft.task}@{version} for other content",
                    fix="give each run its own GRAFTLINE_RUN_KEY",
                )  # fmt: skip
            return version
    data = canonical_json({"publication": publication.id, "payload": payload})
    version = claimed[-1] + 1 if claimed else 1
    while not store.put_if_absent(f"{_key(draft.task, version)}/{CLAIM}", data):
        version += 1
    return version


def _upload(
    store: Store, draft: Draft, publication: Publication, version: int, before: dict[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    """Upload files, records and, last, the manifest; return the manifest's sha256 and value."""
    folder = _key(draft.task, version)
    known = _own_manifest(store, draft, publication, version)
    if known is None:
        for name, path in sorted(draft.files.items()):
            _put(store, f"{folder}/{name}", path)
        for name, data in sorted(draft.records.items()):
            _put(store, f"{folder}/{RECORDS}{name}.json", data)
            _put(store, f"records/{sha256_bytes(data)}.json", data)
        manifest = canonical_json(_manifest_value(draft, publication, version, before))
        if store.put_if_absent(f"{folder}/{MANIFEST}", manifest):
            known = manifest
        else:  # another try of this publication was quicker, at another time of day
            known = _own_manifest(store, draft, publication, version)
            assert known is not None
    return sha256_bytes(known), json.loads(known)


def _own_manifest(store: Store, draft: Draft, publication: Publication, version: int) -> bytes | None:
    """Return the manifest that an earlier try stored. Raises InputError if it is not this publication's."""
    key = f"{_key(draft.task, version)}/{MANIFEST}"
    try:
        data = store.get(key).data
    except MissingError:
        return None
    if _manifest(store, draft.task, version, expected=sha256_bytes(data))["publication"] != publication.id:
        raise InputError(f"{store.url}/{key}", "another publication's", expected=f"that of {publication.id}")
    return data


def _put(store: Store, key: str, content: bytes | Path) -> None:
    if not store.put_if_absent(key, content):
        raise InputError(
            f"{store.url}/{key}", "other bytes are stored there", fix="the store was changed by hand"
        )


def _manifest_value(
    draft: Draft, publication: Publication, version: int, before: dict[str, Any] | None
) -> dict[str, Any]:
    files, records = draft.listing(), draft.record_listing()
    return {
        "task": draft.task,
        "version": version,
        "created": utc_now(),
        "publication": publication.id,
        "content": digest_files(files),
        "files": [file.as_dict() for file in sorted(files + records)],
        "records": {name: sha256_bytes(data) for name, data in draft.records.items()},
        "metrics": dict(draft.metrics),
        "compared_with": dict(draft.compared_with) if draft.compared_with else None,
        "champion_when_published": before,
    }


def _promote(
    ledger: Ledger, draft: Draft, version: int, manifest: str, publication: Publication
) -> Entry | None:
    """Enter the promotion unless a later version is champion; return the entry that decided before it."""
    identity = f"{publication.id}:promote:{draft.task}:{draft.alias}"

    def decide(ledger: Ledger) -> Fact | None:
        current = ledger.current(draft.task, draft.alias)
        lower = current is None or current.version < version
        return (
            Fact("promote", draft.task, version, manifest, identity, draft.alias)
            if lower or ledger.find(identity)
            else None
        )

    entry = ledger.append(decide)
    before = ledger.entries[: entry.sequence - 1] if entry else ledger.entries
    return next((e for e in reversed(before) if (e.task, e.alias) == (draft.task, draft.alias)), None)


def _follow(store: Store, ledger: Ledger, task: str, alias: str) -> Entry | None:
    """Roll the alias object forward to the ledger's last word on it; return that entry."""
    entry = ledger.current(task, alias)
    if entry is None:
        return None
    key, data = (
        f"aliases/{task}/{alias}.json",
        canonical_json({"version": entry.version, "entry": entry.sequence}),
    )
    seen: list[str | None] = []
    # Whoever loses this race was overtaken by another change; a refusal without one is the server's fault.
    while len(seen) < 5 or len(set(seen[-5:])) > 1:
        try:
            stored = store.get(key)
        except MissingError:
            seen.append(None)
            if store.replace(key, data, None):
                return entry
            continue
        seen.append(stored.tag)
        later = _parse_alias(store, key, stored.data)["entry"] > entry.sequence
        if later or stored.data == data or store.replace(key, data, stored.tag):
            return entry
    raise GraftlineError(
        f"{store.url}/{key}: the store refuses to replace it although nothing changed it meanwhile"
    )


def _changed(compared: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    def name(champion: Mapping[str, Any] | None) -> tuple[object, object] | None:
        return (champion.get("version"), champion.get("digest")) if champion else None

    return name(compared) != name(now)


def _payload(draft: Draft) -> str:
    """Return the digest of all that a draft would store under its version, records included."""
    return digest_files(draft.listing() + draft.record_listing())


# Keys, manifests and aliases


def _key(task: str, version: int) -> str:
    return f"releases/{task}/{version}"


def _check_task(task: str) -> None:
    if not _TASK.fullmatch(task):
        raise InputError("task", f"{task!r}", expected="a name of lower-case letters, digits, '-' and '_'")


def _check_alias(alias: str) -> None:
    if not ALIAS.fullmatch(alias):
        raise InputError(
            "alias", f"{alias!r}", expected="a lower-case letter, then letters, digits, '-' and '_'"
        )


def _no_release(store: Store, task: str, found: str) -> InputError:
    releases = list_releases(store, task)
    if not releases:
        tasks = sorted(
            {match[1] for key in store.list("releases/") if (match := _VERSION_KEY.fullmatch(key))}
        )
        return InputError(
            f"task '{task}'",
            f"no release in {store.url}" + (f", which has {', '.join(tasks)}" if tasks else ""),
            fix=f"make one with `graftline run {task}`",
        )  # fmt: skip
    have = ", ".join(str(r.version) + (f" ({', '.join(r.aliases)})" if r.aliases else "") for r in releases)
    return InputError(f"task '{task}'", found, expected=f"one of the versions {have}")


def _read_json(store: Store, key: str) -> dict[str, Any]:
    data = store.get(key).data
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{store.url}/{key}", "not a JSON object", fix="the store was changed by hand")
    return value


def _manifest(store: Store, task: str, version: int, *, expected: str | None = None) -> dict[str, Any]:
    """Return a manifest whose own parts agree. Raises MissingError, InputError."""
    key = f"{_key(task, version)}/{MANIFEST}"
    where, data = f"{store.url}/{key}", store.get(key).data
    if expected is not None and sha256_bytes(data) != expected:
        raise InputError(
            where, f"sha256 {sha256_bytes(data)}", expected=expected, fix="the release was changed: roll back"
        )
    try:
        manifest = json.loads(data)
        files = _manifest_files(manifest)
        whole = (manifest["task"], manifest["version"]) == (task, version) and isinstance(
            manifest["created"], str
        )
        content = digest_files([file for file in files if not file.path.startswith(RECORDS)])
        whole = whole and isinstance(manifest["publication"], str) and manifest["content"] == content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            where, f"not a manifest ({error!r})", fix="the release was changed: roll back"
        ) from None
    if not whole:
        raise InputError(
            where, "it contradicts itself", expected=f"the manifest of {task}@{version}", fix="roll back"
        )
    checked: dict[str, Any] = manifest
    return checked


def _manifest_files(manifest: dict[str, Any]) -> list[FileDigest]:
    files = [FileDigest(**file) for file in manifest["files"]]
    for file in files:
        check_key(file.path)
        if not isinstance(file.size, int) or not _SHA256.fullmatch(file.sha256):
            raise ValueError(f"{file.path}: size {file.size!r}, sha256 {file.sha256!r}")
    return files


def _release(store: Store, task: str, version: int, aliases: Mapping[tuple[str, str], int]) -> Release:
    key = f"{_key(task, version)}/{MANIFEST}"
    digest = sha256_bytes(store.get(key).data)
    manifest = _manifest(store, task, version, expected=digest)
    return Release(
        task=task, version=version, path=f"{store.url}/{_key(task, version)}", digest=manifest["content"],
        created=manifest["created"], manifest=digest,
        aliases=tuple(sorted(name for (of, name), to in aliases.items() if (of, to) == (task, version))),
    )  # fmt: skip


def _aliases(store: Store, task: str | None) -> dict[tuple[str, str], int]:
    """Return the version that each (task, alias) points at."""
    found = {}
    for key in store.list(f"aliases/{task}/" if task else "aliases/"):
        _, of, name = key.split("/")
        found[of, name.removesuffix(".json")] = _parse_alias(store, key, store.get(key).data)["version"]
    return found


def _alias(store: Store, task: str, alias: str) -> int | None:
    """Return the version that an alias points at, after comparing it with the ledger entry that it names."""
    key = f"aliases/{task}/{alias}.json"
    try:
        value = _parse_alias(store, key, store.get(key).data)
    except MissingError:
        return None
    try:
        entry = read_entry(store, value["entry"])
    except MissingError:
        entry = None
    if entry is None or (entry.task, entry.alias, entry.version) != (task, alias, value["version"]):
        raise InputError(
            f"{store.url}/{key}", f"version {value['version']} by entry {value['entry']}",
            expected="what that entry says",
            fix="the alias was changed by hand: set it with `graftline rollback`",
        )  # fmt: skip
    return value["version"]


def _parse_alias(store: Store, key: str, data: bytes) -> dict[str, int]:
    try:
        value = json.loads(data)
        if type(value["version"]) is int and type(value["entry"]) is int:
            return {"version": value["version"], "entry": value["entry"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(
        f"{store.url}/{key}",
        "not an alias",
        expected="version and entry",
        fix="the store was changed by hand",
    )


def _pointed(store: Store, task: str, alias: str) -> dict[str, Any] | None:
    """Return version and content digest of where an alias points."""
    version = _alias(store, task, alias)
    return (
        None if version is None else {"version": version, "digest": _release(store, task, version, {}).digest}
    )


# Fetching


def _check_folder(folder: Path, files: list[FileDigest], *, also: frozenset[str] = frozenset()) -> None:
    """Raise InputError unless `folder` holds exactly `files`, and perhaps `also`."""
    have = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - also
    _check_names(str(folder), have, {file.path for file in files})
    for file in files:
        _check_file(folder / file.path, f"{folder}/{file.path}", file)


def _check_names(where: str, have: set[str], want: set[str]) -> None:
    for name in sorted(have ^ want):
        found, expected = ("there", "no such file") if name in have else ("missing", "the file")
        raise InputError(
            f"{where}/{name}",
            found,
            expected=f"{expected}, by the manifest",
            fix="the release was changed: roll back",
        )


def _check_file(path: Path, where: str, file: FileDigest) -> None:
    actual = sha256_file(path)
    if actual != file.sha256:
        raise InputError(
            where,
            f"sha256 {actual}",
            expected=f"{file.sha256}, by the manifest",
            fix="the release was changed: roll back",
        )


def _fetch_to_cache(store: Store, release: Release, files: list[FileDigest]) -> Path:
    """Return the cached folder of a release; what is cached is verified as strictly as what is downloaded."""
    prefix = f"{_key(release.task, release.version)}/"
    have = {key.removeprefix(prefix) for key in store.list(prefix)} - {CLAIM, MANIFEST}
    _check_names(f"{store.url}/{prefix}".rstrip("/"), have, {file.path for file in files})
    cache = Path(os.environ.get("GRAFTLINE_CACHE") or Path.home() / ".cache" / "graftline") / "releases"
    final = cache / release.manifest
    if final.exists():
        try:
            _check_folder(final, files)
        except InputError:
            shutil.rmtree(final)  # a damaged cache is not a damaged release
        else:
            return final
    cache.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".aside-", dir=cache))
    try:
        for file in files:
            target = aside / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(prefix + file.path, target)
            _check_file(target, f"{store.url}/{prefix}{file.path}", file)
        _into_place(aside, final, lambda: _check_folder(final, files))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def _into_place(aside: Path, final: Path, check: Callable[[], None]) -> None:
    fsync_tree(aside)
    try:
        aside.rename(final)
    except OSError:
        if not final.exists():
            raise
        check()  # another process fetched the same release meanwhile
