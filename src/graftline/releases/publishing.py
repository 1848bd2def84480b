"""Make a release: claim a version, upload, sign, put the manifest last, enter it in the ledger, promote it.

A publisher that is killed anywhere and run again continues under its publication id and releases once. What was
released before is not released again: the ledger's entry of a release says what it is, apart from the champion that it
was compared with, and a draft of the same gets no version of its own (docs/decisions/equal-release.md).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import FileDigest, digest_files, sha256_bytes, sha256_file
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.ledger.entries import Entry, Fact
from graftline.ledger.log import Ledger
from graftline.releases.catalogue import Release, pointed_at, read_release
from graftline.releases.layout import (
    CHAMPION,
    CLAIM,
    MANIFEST,
    RECORDS,
    VERSION_KEY,
    check_alias,
    check_task,
    manifest_files,
    read_manifest,
    read_object,
    release_key,
)
from graftline.releases.promotion import follow, promote
from graftline.releases.provenance import Provenance, check, check_revoked, keep, put
from graftline.signing.keyring import Keyring, load_keyring
from graftline.signing.keys import PublicKey, Signer
from graftline.signing.model import MODEL_SIGNATURE, model_signers, sign_model
from graftline.signing.rotation import open_ledger
from graftline.store import MissingError, Store, check_key
from graftline.times import utc_now

_CHANGED = "the store was changed, or an earlier try was of other content: publish anew, under another id"


@dataclass(frozen=True)
class ReleaseDraft:
    """What is to be released, and under which publication."""

    task: str
    files: Mapping[str, Path]
    """The local file of each path in the release."""
    records: Mapping[str, bytes]
    """The bytes of each record by name (dataset, trunk, ...); they do not enter the content digest."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    compared_with: Mapping[str, Any] | None = None
    """The champion at evaluation: `version` and `digest`, or None if there was none."""
    alias: str = CHAMPION
    envelopes: Mapping[str, bytes] = field(default_factory=dict)
    """The signature envelope of each record by the record's name."""
    locks: Mapping[str, bytes] = field(default_factory=dict)
    """Each lock file that a record names, by its sha256."""
    identity: str = ""
    """sha256 over all that the release is but for the comparison with the champion: two of one identity are equal.
    Empty: it is equal to none."""

    @cached_property
    def listing(self) -> list[FileDigest]:
        """Path, size and sha256 of each file, records not among them, sorted by path.

        Hashed once, before anything is stored: what is claimed, uploaded and listed in the manifest is one
        content. Were a file changed after that, every reader would refuse the release.
        """
        return sorted(FileDigest(check_key(n), p.stat().st_size, sha256_file(p)) for n, p in self.files.items())

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.records, self.envelopes, self.locks)

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
    current: Release | None
    """Where the alias points now; None if nowhere."""
    previous_champion: Release | None
    """Where the alias pointed before this release was promoted, or points still; None if nowhere."""
    equal: bool = False
    """Whether it was there already: the publication made no version of its own."""


def open_publication(work: Path, draft: ReleaseDraft) -> Publication:
    """Return the publication for `draft`: the one that an earlier, killed try in `work` began, or a new one.

    $GRAFTLINE_RUN, if set, and the content are its id: an orchestrator that retries elsewhere finds no folder `work`.
    """
    path, payload = work / "publication.json", _payload(draft)
    if run := os.environ.get("GRAFTLINE_RUN"):
        return Publication(f"{run}-{payload[:16]}")
    try:
        known = json.loads(path.read_bytes())
        if known["payload"] == payload:
            return Publication(str(known["id"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # none, or one of another format: what it began stays invisible
    publication = Publication(uuid.uuid4().hex, fresh=True)
    write_atomic(path, canonical_json({"id": publication.id, "payload": payload}))
    return publication


def publish(store: Store, draft: ReleaseDraft, publication: Publication) -> Receipt:
    """Release `draft` as a new version, enter it in the ledger, and promote it if the champion is still the
    release that it was compared with. If not, it is released all the same. A release that is equal to it stands for
    it: no version is made, and that one is promoted by the same rule.

    Doing it again with the same publication changes nothing and returns the same release.

    Raises:
        InputError: the publication was used for other content, or what an earlier try stored of it was changed; a
            file's name cannot be a key; no trusted key signed a record's envelope, or one that the ledger has revoked;
            or there is no key to sign with.
        RefusalError: the store's ledger takes no entries of this machine's key.
    """
    keyring = load_keyring()
    check_task(draft.task)
    check_alias(draft.alias)
    signed = check(draft.provenance, keyring)
    ledger = open_ledger(store, keyring)
    check_revoked(signed, ledger)  # all before a version is taken
    before = pointed_at(store, draft.task, draft.alias, ledger)
    version = _claimed(store, draft, publication)  # by a try that was killed: it is finished, whatever came since
    equal = None if version else _equal(store, ledger, draft)
    if equal is not None:
        keep(store, draft.provenance, keyring)
        version, manifest = equal.version, equal.digest
    else:
        version = version or _claim(store, draft, publication)
        manifest = _upload(store, draft, publication, version, before, keyring, ledger)
        identity = f"{publication.id}:release:{draft.task}"
        detail = {"identity": draft.identity} if draft.identity else {}
        ledger.append(lambda _: Fact("release", draft.task, version, manifest, identity, detail=detail))
    identity = f"{publication.id}:promote:{draft.task}:{draft.alias}"
    fact = Fact("promote", draft.task, version, manifest, identity, draft.alias)
    previous = promote(store, ledger, fact, draft.compared_with)
    current = follow(store, ledger, draft.task, draft.alias)
    return Receipt(
        release=read_release(store, draft.task, version, ledger),
        alias=draft.alias,
        equal=equal is not None,
        promoted=current is not None and current.version == version,
        current=_release_of(store, ledger, current),
        previous_champion=_release_of(store, ledger, previous),
    )


def _release_of(store: Store, ledger: Ledger, entry: Entry | None) -> Release | None:
    return None if entry is None else read_release(store, entry.task, entry.version, ledger)


def _equal(store: Store, ledger: Ledger, draft: ReleaseDraft) -> Entry | None:
    """Return the entry of the newest release of the draft's identity of which every file is there; None if none is."""
    released = (e for e in reversed(ledger.entries) if (e.event, e.task) == ("release", draft.task))
    same = (e for e in released if draft.identity and e.detail.get("identity") == draft.identity)
    return next((entry for entry in same if _is_there(store, entry)), None)


def _is_there(store: Store, entry: Entry) -> bool:
    """Return whether a release was not erased, deleted or changed since; its files' bytes are not read."""
    folder = release_key(entry.task, entry.version)
    try:
        manifest = read_manifest(store, entry.task, entry.version, expected=entry.digest)
    except (MissingError, InputError):
        return False
    return {f"{folder}/{file.path}" for file in manifest_files(manifest)} <= set(store.list(f"{folder}/"))


def _claimed(store: Store, draft: ReleaseDraft, publication: Publication) -> int | None:
    """Return the version that an earlier try of the publication claimed."""
    for version in [] if publication.fresh else reversed(_versions(store, draft.task)):
        claim = read_object(store, f"{release_key(draft.task, version)}/{CLAIM}")
        if claim.get("publication") == publication.id:
            if claim.get("payload") != _payload(draft):
                raise InputError(
                    f"publication {publication.id}",
                    f"it claimed {draft.task}@{version} for other content",
                    fix="give each publication its own id",
                )
            return version
    return None


def _claim(store: Store, draft: ReleaseDraft, publication: Publication) -> int:
    """Return the next free version, claimed."""
    data = canonical_json({"publication": publication.id, "payload": _payload(draft)})
    version = max(_versions(store, draft.task), default=0) + 1
    while not store.put_if_absent(f"{release_key(draft.task, version)}/{CLAIM}", data):
        version += 1
    return version


def _versions(store: Store, task: str) -> list[int]:
    """Return the versions that were claimed, in order."""
    keys = store.list(f"releases/{task}/")
    return sorted({int(match[2]) for key in keys if (match := VERSION_KEY.fullmatch(key))})


def _upload(
    store: Store,
    draft: ReleaseDraft,
    publication: Publication,
    version: int,
    before: dict[str, Any] | None,
    keyring: Keyring,
    ledger: Ledger,
) -> str:
    """Upload files, records, signatures and, last, the manifest; return the manifest's sha256."""
    folder = release_key(draft.task, version)
    trusted = {k: v for k, v in keyring.public.items() if ledger.trust.state(k) != "revoked"}
    known = _own_manifest(store, draft, publication, version, trusted)
    if known is None:
        for file in draft.listing:
            put(store, f"{folder}/{file.path}", draft.files[file.path])
        for name, data in sorted(draft.records.items()):
            put(store, f"{folder}/{RECORDS}{name}.json", data)
        keep(store, draft.provenance, keyring, signer=keyring.signer().public)
        signature = _sign(store, draft, version, keyring.signer(), trusted)
        manifest = canonical_json(_manifest_value(draft, publication, version, before, signature))
        if store.put_if_absent(f"{folder}/{MANIFEST}", manifest):
            known = manifest
        else:  # another try of this publication was quicker, at another time of day
            known = _own_manifest(store, draft, publication, version, trusted)
            assert known is not None
    return sha256_bytes(known)


def _sign(
    store: Store, draft: ReleaseDraft, version: int, signer: Signer, trusted: Mapping[str, PublicKey]
) -> FileDigest:
    """Store the model signature, or check the one that an earlier try stored, elsewhere perhaps: its bytes differ."""
    name, files = f"{draft.task}@{version}", draft.listing + draft.record_listing()
    data = sign_model(name, files, signer)
    if not store.put_if_absent(f"{release_key(draft.task, version)}/{MODEL_SIGNATURE}", data):
        return _stored_signature(store, draft, version, trusted)
    return FileDigest(MODEL_SIGNATURE, len(data), sha256_bytes(data))


def _stored_signature(store: Store, draft: ReleaseDraft, version: int, trusted: Mapping[str, PublicKey]) -> FileDigest:
    """Return the model signature in the store. Raises InputError unless a trusted key signed the draft's files."""
    key, name = f"{release_key(draft.task, version)}/{MODEL_SIGNATURE}", f"{draft.task}@{version}"
    where, files = f"{store.url}/{key}", draft.listing + draft.record_listing()
    try:
        data = store.get(key).data
    except MissingError:
        raise InputError(where, "missing, and the manifest is there", fix=_CHANGED) from None
    if not model_signers(data, name, files, trusted, where=where):
        raise InputError(
            where,
            "not signed by a key that is trusted here",
            expected=f"the signature of an earlier try to publish {name}",
            fix="trust the key of the machine that tried (`graftline keys trust`), or publish anew",
        )
    return FileDigest(MODEL_SIGNATURE, len(data), sha256_bytes(data))


def _own_manifest(
    store: Store, draft: ReleaseDraft, publication: Publication, version: int, trusted: Mapping[str, PublicKey]
) -> bytes | None:
    """Return the manifest that an earlier try stored, if there is one.

    The claim is no secret: anybody who can write to the store can have put a manifest under it. It must say what this
    try would say, but for the time and the champion of that time, and list a model signature by a trusted key.

    Raises:
        InputError: it is another publication's, or says something else.
    """
    key = f"{release_key(draft.task, version)}/{MANIFEST}"
    try:
        data = store.get(key).data
    except MissingError:
        return None
    found = read_manifest(store, draft.task, version, expected=sha256_bytes(data))
    if found["publication"] != publication.id:
        raise InputError(f"{store.url}/{key}", "another publication's", expected=f"that of {publication.id}")
    signature = _stored_signature(store, draft, version, trusted)
    before = found.get("champion_when_published")
    expected = _manifest_value(draft, publication, version, before, signature) | {"created": found["created"]}
    other = [n for n in sorted(expected | found) if (n in found, found.get(n)) != (True, expected.get(n))]
    if other:
        raise InputError(
            f"{store.url}/{key}", f"other {', '.join(other)}", fix=_CHANGED, expected=f"what {publication.id} publishes"
        )
    return data


def _manifest_value(
    draft: ReleaseDraft, publication: Publication, version: int, before: dict[str, Any] | None, signature: FileDigest
) -> dict[str, Any]:
    files, records = draft.listing, draft.record_listing()
    return {
        "task": draft.task,
        "version": version,
        "created": utc_now(),
        "publication": publication.id,
        "content": digest_files(files),
        "files": [file.as_dict() for file in sorted([*files, *records, signature])],
        "records": {name: sha256_bytes(data) for name, data in draft.records.items()},
        "locks": sorted(draft.locks),
        "metrics": dict(draft.metrics),
        "compared_with": dict(draft.compared_with) if draft.compared_with else None,
        "champion_when_published": before,
    }


def _payload(draft: ReleaseDraft) -> str:
    """Return the digest of all that a draft would store under its version, records included."""
    return digest_files(draft.listing + draft.record_listing())
