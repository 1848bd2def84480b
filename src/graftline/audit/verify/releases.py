"""Releases: the manifest that the ledger vouches for, every file that it lists, and where those files came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.audit.verify.hashing import Hashed
from graftline.canonical import canonical_json
from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import InputError
from graftline.findings import Finding, kind_of
from graftline.releases.layout import CLAIM, MANIFEST, RECORDS, is_content, manifest_files, release_key
from graftline.signing.model import MODEL_SIGNATURE, model_signers

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.audit.verify.records import Records
    from graftline.ledger.entries import Entry
    from graftline.ledger.verification import LedgerState

CARD = "README.md"
"""Made by publish itself; each other file is one of a step's output."""


@dataclass
class CheckedRelease:
    """A release whose manifest is the one that the ledger names."""

    task: str
    version: int
    manifest: dict[str, Any]
    files: dict[str, FileDigest]
    sequence: int | None
    """The ledger's entry; None if there is none."""

    @property
    def folder(self) -> str:
        return release_key(self.task, self.version)

    @property
    def records(self) -> dict[str, str]:
        """The sha256 of each record by name."""
        return {str(name): str(digest) for name, digest in self.manifest["records"].items()}


@dataclass
class CheckedReleases:
    """The releases that can be verified further."""

    found: list[CheckedRelease] = field(default_factory=list)
    unpublished: list[tuple[str, int]] = field(default_factory=list)
    """Versions that were claimed and have no manifest: a publication that never ended."""

    def first_places(self) -> dict[str, int]:
        """Return, of each record, where the ledger first mentions a release that names it."""
        places: dict[str, int] = {}
        for release in self.found:
            for digest in release.records.values():
                if release.sequence is not None:
                    places[digest] = min(release.sequence, places.get(digest, release.sequence))
        return places


def verify_manifests(
    inventory: Inventory, ledger: LedgerState, only: tuple[str, int] | None
) -> tuple[CheckedReleases, list[Finding]]:
    """Return the releases, all or one, and what is wrong with their manifests and claims."""
    entries = {k: e for k, e in ledger.releases().items() if only in (None, k)}
    versions = sorted(k for k in inventory.releases if only in (None, k))
    releases, findings = CheckedReleases(), []
    for which in sorted(entries.keys() - {v for v in versions if MANIFEST in inventory.releases[v]}):
        place = f"{release_key(*which)}/{MANIFEST}"
        findings.append(Finding(place, "missing", f"sha256 {entries[which].digest}", "nothing", file=MANIFEST))
    published = [v for v in versions if MANIFEST in inventory.releases[v]]
    for key, data in inventory.read_all([f"{release_key(*v)}/{MANIFEST}" for v in published]):
        task, version = key.split("/")[1], int(key.split("/")[2])
        entry = entries.get((task, version))
        release, wrong = _verify_manifest(ledger, task, version, data or b"", entry)
        findings += wrong
        if release is not None:
            releases.found.append(release)
            findings += _verify_names(inventory, release)
    releases.unpublished = [v for v in versions if v not in published and v not in entries]
    findings += _verify_claims(inventory, releases)
    return releases, findings


def _verify_manifest(
    ledger: LedgerState, task: str, version: int, data: bytes, entry: Entry | None
) -> tuple[CheckedRelease | None, list[Finding]]:
    place, actual = f"{release_key(task, version)}/{MANIFEST}", f"sha256 {sha256_bytes(data)}"
    if entry is not None and entry.digest != sha256_bytes(data):
        return None, [Finding(place, "tampered", f"sha256 {entry.digest}", actual, file=MANIFEST)]
    findings = []
    if entry is None and ledger.whole:
        findings = [Finding(place, "unsigned", "an entry of the ledger that names it", "none", file=MANIFEST)]
    try:
        manifest = json.loads(data)
        files = manifest_files(manifest)
        said = manifest["task"], manifest["version"], manifest["content"]
        content = digest_files([file for file in files if is_content(file.path)])
        records = {f"{RECORDS}{name}.json": digest for name, digest in manifest["records"].items()}
        listed = {file.path: file.sha256 for file in files if file.path.startswith(RECORDS)}
        if data != canonical_json(manifest) or len({file.path for file in files}) != len(files):
            raise ValueError("not in canonical form")
        _ = str(manifest["publication"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        return None, [*findings, Finding(place, "tampered", "a manifest", f"{error}"[:200], file=MANIFEST)]
    if said != (task, version, content) or records != listed:
        expected = f"the manifest of {task}@{version}, content {content}, and its own records"
        findings.append(Finding(place, "tampered", expected, f"{said[0]}@{said[1]}, content {said[2]}", file=MANIFEST))
        return None, findings
    by_path = {file.path: file for file in files}
    return CheckedRelease(task, version, manifest, by_path, entry.sequence if entry else None), findings


def _verify_names(inventory: Inventory, release: CheckedRelease) -> Iterator[Finding]:
    """Yield the files that are missing or that the manifest does not list."""
    have = inventory.releases[release.task, release.version]
    for name in sorted(release.files.keys() - have):
        yield Finding(
            f"{release.folder}/{name}", "missing", f"sha256 {release.files[name].sha256}", "nothing", file=name
        )
    for name in sorted(have - release.files.keys() - {MANIFEST, CLAIM}):
        yield Finding(f"{release.folder}/{name}", "unexpected", "no such file, by the manifest", "there", file=name)
    if MODEL_SIGNATURE not in release.files:
        yield Finding(
            f"{release.folder}/{MODEL_SIGNATURE}", "unsigned", "a model signature", "none", file=MODEL_SIGNATURE
        )
    if CLAIM not in have:
        yield Finding(f"{release.folder}/{CLAIM}", "missing", "the publication's claim", "nothing", file=CLAIM)
    for digest in release.manifest.get("locks") or []:
        if f"locks/{digest}.txt" not in inventory.keys:
            yield Finding(f"locks/{digest}.txt", "missing", f"sha256 {digest}", "nothing", file="requirements.lock")


def _verify_claims(inventory: Inventory, releases: CheckedReleases) -> Iterator[Finding]:
    """Yield claims that are not those of their release, or are none."""
    by_key = {f"{release.folder}/{CLAIM}": release for release in releases.found}
    claimed = [f"{release_key(*version)}/{CLAIM}" for version in releases.unpublished]
    for key, data in inventory.read_all([key for key in [*by_key, *claimed] if key in inventory.keys]):
        release = by_key.get(key)
        claim = _parse_claim(data or b"")
        if claim is None:
            yield Finding(key, "tampered", "a claim", f"{(data or b'')[:80]!r}", file=CLAIM)
        elif release is not None:
            files = [file for file in release.files.values() if file.path != MODEL_SIGNATURE]
            want = (release.manifest["publication"], digest_files(files))
            if claim != want:
                yield Finding(
                    key, "tampered", f"publication {want[0]} of {want[1]}", f"{claim[0]} of {claim[1]}", file=CLAIM
                )
    for version in releases.unpublished:
        if CLAIM not in inventory.releases[version]:
            place = f"{release_key(*version)}/{CLAIM}"
            yield Finding(place, "missing", "the claim of the files beside it", "nothing", file=CLAIM)


def _parse_claim(data: bytes) -> tuple[str, str] | None:
    try:
        value = json.loads(data)
        found = value["publication"], value["payload"]
        whole = canonical_json({"publication": found[0], "payload": found[1]}) == data
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if whole and all(isinstance(part, str) for part in found) else None


def verify_files(release: CheckedRelease, hashed: Mapping[str, Hashed | None], records: Records) -> Iterator[Finding]:
    """Yield the files whose bytes differ from the manifest, and those that no record of the release lists.

    Args:
        release: whose.
        hashed: what was found of each object, by key; files that were not read are not in it.
        records: those of the release among them.
    """
    listed = {
        file: records.steps[digest].name
        for digest in release.records.values()
        for file in records.files.get(digest, ())
    }
    complete = all(digest in records.files for digest in release.records.values())
    for path, file in release.files.items():
        place, step = f"{release.folder}/{path}", listed.get(file, "")
        found = hashed.get(place)
        if found is not None and (found.size, found.sha256) != (file.size, file.sha256):
            yield Finding(
                place,
                "tampered",
                f"sha256 {file.sha256}, {file.size} bytes",
                f"sha256 {found.sha256}, {found.size} bytes",
                step=step,
                file=path,
            )
        if is_content(path) and path != CARD and complete and not step:
            actual = f"sha256 {file.sha256}"
            yield Finding(place, "unexpected", "a file that a record of the release lists", actual, file=path)


def verify_model_signatures(
    inventory: Inventory, ledger: LedgerState, releases: CheckedReleases
) -> Iterator[tuple[set[str], Finding | None]]:
    """Yield the ids of the keys that signed each release's files, and what is wrong with the signature."""
    by_key = {f"{release.folder}/{MODEL_SIGNATURE}": release for release in releases.found}
    known = {**ledger.keyring.public, **ledger.chain.trust.keys}
    for key, data in inventory.read_all([key for key in by_key if key in inventory.keys]):
        release = by_key[key]
        files = [file for file in release.files.values() if file.path != MODEL_SIGNATURE]
        name = f"{release.task}@{release.version}"
        try:
            by = model_signers(data or b"", name, files, known, where=key)
        except InputError as error:
            expected = error.expected or "a model signature"
            yield set(), Finding(key, "tampered", expected, error.found, file=MODEL_SIGNATURE)
            continue
        states = {keyid: ledger.state(keyid, release.sequence) for keyid in by}
        good = {keyid for keyid, state in states.items() if state not in ("unknown", "revoked")}
        if good:
            yield good, None
            continue
        state = next(iter(states.values()), "unknown")
        shown = ", ".join(states) or "a key that is not known here"
        yield set(), Finding(key, kind_of(state), "a key that was valid", shown, file=MODEL_SIGNATURE)
