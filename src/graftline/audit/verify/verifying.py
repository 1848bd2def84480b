"""Has anything in a store changed since its writers signed it? Every object is read, or reported as unexpected.

The ledger comes first: it says which keys were valid where and vouches for each release's manifest; the manifest for
the release's files and records; a record for its inputs' records. What none of them vouches for stands on its own
signature. docs/decisions/verify.md says what cannot be told.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.audit.verify.aliases import verify_aliases
from graftline.audit.verify.erasures import Erased, verify_erasures
from graftline.audit.verify.findings import Verdict
from graftline.audit.verify.hashing import Hashed, Progress, State, hash_all, hashers_of
from graftline.audit.verify.inventory import Inventory
from graftline.audit.verify.naming import UNTOLD, find_named
from graftline.audit.verify.others import bundle_parts, verify_bundles, verify_keys, verify_notes
from graftline.audit.verify.records import Records, verify_records
from graftline.audit.verify.releases import CheckedReleases, verify_files, verify_manifests, verify_model_signatures
from graftline.audit.verify.rounds import verify_rounds
from graftline.audit.verify.rows import RowIndexes, verify_rows
from graftline.digests import sha256_bytes
from graftline.findings import Finding
from graftline.ledger.entries import entry_key
from graftline.ledger.verification import LedgerState, verify_ledger
from graftline.releases.layout import parse_reference

if TYPE_CHECKING:
    from graftline.ledger.checkpoint import TreeHead
    from graftline.releases.catalogue import Release as Reference
    from graftline.store import Store

__all__ = ["Finding", "Options", "Verdict", "verify"]


@dataclass(frozen=True)
class Options:
    """How to verify."""

    checkpoints: Mapping[str, TreeHead] = field(default_factory=dict)
    """Checkpoints that were kept elsewhere, each with what to call it."""
    first_key: str | None = None
    """The id of the key that the ledger must begin with, or its beginning."""
    sample: float | None = None
    """The share of files and shards to read, above 0 and at most 1; None for all. Small objects are always read."""
    seed: str = field(default_factory=lambda: secrets.token_hex(4))
    """Decides which ones."""
    resume: bool = False
    """Whether what an interrupted run has hashed need not be hashed again."""
    readers: int | None = None
    """How many objects are read at once; by default as the store's kind bears."""
    keep_state: bool = True
    """Whether an interruption leaves something to resume from."""
    progress: Progress = lambda done, of: None


_PASSES = 5
"""How often a store is looked at that others write to. Its files are hashed once."""


def verify(store: Store, release: Reference | str | None = None, options: Options | None = None) -> Verdict:
    """Return what is not as it should be in a store, or in one release and all that it came from.

    What is found while others write may come from looking at one thing before and at another after: then it is looked
    at again.

    Args:
        store: which.
        release: it, or its name (`task@version`, `task@alias` or `task`), of which the ledger says what it means.
        options: how.

    Raises:
        InputError: neither the ledger nor the store has a release of that name.
        GraftlineError: the store cannot be read, so that nothing can be said.
    """
    options = options or Options()
    name = release if release is None or isinstance(release, str) else release.name
    began, hashed = time.monotonic(), dict[str, Hashed | None]()
    for left in reversed(range(_PASSES)):
        verification = _Verification(store, name, options, began, hashed)
        verdict = verification.run()
        if verdict.whole or not left or not verification.inventory.has_changed():
            break
        wrong = {finding.place for finding in verdict.findings}
        hashed = {k: found for k, found in verification.hashed.items() if found and k not in wrong}
    return verdict


class _Verification:
    """One verification, in the order in which one thing vouches for the next."""

    def __init__(
        self, store: Store, name: str | None, options: Options, began: float, hashed: dict[str, Hashed | None]
    ) -> None:
        if name is not None:
            parse_reference(name)  # before anything is read
        self._store, self._name, self._options, self._began = store, name, options, began
        self._only: tuple[str, int] | None = None
        self.inventory = Inventory(store, options.readers)
        self.hashed = hashed
        """What was hashed, by an earlier pass or by this one."""
        self._findings: list[Finding] = []

    def run(self) -> Verdict:
        inventory, options = self.inventory, self._options
        numbers = sorted(int(match[1]) for match in inventory.of["ledger"])
        ledger = verify_ledger(
            self._store,
            inventory.read_all([entry_key(number) for number in numbers]),
            checkpoints=options.checkpoints,
            first_key=options.first_key,
        )
        self._findings += [*ledger.findings, *([ledger.unvouched] if ledger.unvouched else [])]
        self._only = find_named(inventory, ledger, self._name) if self._name is not None else None
        erased = verify_erasures(inventory, ledger, self._only)
        self._findings += erased.findings
        releases, wrong = verify_manifests(inventory, ledger, self._only)
        self._findings += wrong
        tasks = frozenset({self._only[0]}) if self._only else None
        self._findings += verify_aliases(inventory, ledger, tasks)
        records = self._verify_records(ledger, releases)
        self._findings += verify_rounds(inventory, ledger, self._only[0] if self._only else None)
        signers = self._verify_signers(ledger, releases, records)
        self._findings += verify_keys(inventory, ledger, signers)
        rows = self._verify_rows(ledger, records)
        self._findings += rows.findings
        if self._only is None:
            self._findings += verify_notes(inventory)
            self._findings += verify_bundles(inventory)
            self._findings += self._unexpected()
        left_out = self._hash(releases, records, rows)
        return self._verdict(ledger, erased, left_out)

    def _verify_records(self, ledger: LedgerState, releases: CheckedReleases) -> Records:
        released = releases.first_places()
        named = [digest for release in releases.found for digest in release.records.values()]
        stored = [match[1] for match in self.inventory.of["record"]]
        signed = list(self.inventory.signatures)
        wanted = named if self._only else [*named, *stored, *signed]
        for digest in named:  # also where no entry vouches for the release
            released.setdefault(digest, ledger.last)
        records, wrong = verify_records(
            self.inventory, ledger, wanted, released=released, follow=self._only is not None
        )
        self._findings += wrong
        return records

    def _verify_signers(self, ledger: LedgerState, releases: CheckedReleases, records: Records) -> set[str]:
        """Return the ids of the keys that signed what was read."""
        signatures = self.inventory.signatures
        signers = {keyid for digest in records.steps for keyid in signatures.get(digest, ())}
        for by, wrong in verify_model_signatures(self.inventory, ledger, releases):
            signers |= by
            self._findings += [wrong] if wrong else []
        return {keyid for keyid in signers if ledger.public(keyid) is not None}

    def _verify_rows(self, ledger: LedgerState, records: Records) -> RowIndexes:
        recorded = frozenset(step.content for step in records.steps.values() if step.name == "dataset")
        return verify_rows(self.inventory, ledger, recorded, only=self._only is not None)

    def _unexpected(self) -> Iterator[Finding]:
        for key in self.inventory.unexpected:
            yield Finding(key, "unexpected", "a kind of object that Graftline stores", "there")
        for name in _hidden(self._store):
            yield Finding(name, "unexpected", "no hidden file", "there")

    def _hash(self, releases: CheckedReleases, records: Records, rows: RowIndexes) -> int:
        """Hash what is large, and compare it; return how many objects the sample leaves out."""
        files = {f"{r.folder}/{path}": r for r in releases.found for path in r.files}
        by_name = bundle_parts(self.inventory) if self._only is None else {}
        by_name |= {key: sha for key, (sha, _) in rows.shards.items()}
        by_name |= {m[0]: m[1] for m in self.inventory.of["lock"] if self._only is None or _named(records, m[1])}
        wanted = [key for key in [*files, *by_name] if key in self.inventory.keys]
        chosen = [key for key in wanted if self._chosen(key)]
        self.hashed = {key: self.hashed[key] for key in chosen if key in self.hashed}
        state = State.of(self._store.url, resume=self._options.resume) if self._options.keep_state else None
        done = False
        try:
            self.hashed |= hash_all(
                self._store,
                [key for key in chosen if key not in self.hashed],
                self._options.readers or hashers_of(self._store),
                state,
                self._options.progress,
            )
            done = True
        finally:
            if state:
                state.close(done=done)
        for release in releases.found:
            self._findings += verify_files(release, self.hashed, records)
        self._findings += self._compare(by_name, rows)
        return len(wanted) - len(chosen)

    def _compare(self, by_name: dict[str, str], rows: RowIndexes) -> Iterator[Finding]:
        for key, expected in by_name.items():
            found = self.hashed.get(key)
            if found is not None and found.sha256 != expected:
                row = rows.shards[key][1] if key in rows.shards else ""
                yield Finding(key, "tampered", f"sha256 {expected}", f"sha256 {found.sha256}", row=row)

    def _chosen(self, key: str) -> bool:
        if self._options.sample is None:
            return True
        drawn = int(sha256_bytes(f"{self._options.seed} {key}".encode())[:13], 16) / 16**13
        return drawn < self._options.sample

    def _form_only(self) -> int:
        return 0 if self._only else sum(len(self.inventory.of[kind]) for kind in ("run", "sign", "plan"))

    def _verdict(self, ledger: LedgerState, erased: Erased, left_out: int) -> Verdict:
        hashed = [found for found in self.hashed.values() if found]
        findings = dict.fromkeys(erased.apply(finding) for finding in self._findings)
        return Verdict(
            store=self._store.url,
            scope=self._scope(),
            findings=tuple(sorted(findings)),
            objects=len(self.inventory.keys) - left_out if self._only is None else len(hashed) + ledger.last,
            bytes=sum(found.size for found in hashed),
            resumed=sum(found.resumed for found in hashed),
            sampled_out=left_out,
            form_only=self._form_only(),
            seed=self._options.seed if self._options.sample is not None else "",
            anchors=tuple(ledger.anchors),
            entries=ledger.last,
            seconds=time.monotonic() - self._began,
        )

    def _scope(self) -> str:
        if self._only is None:
            return "all"
        return f"{self._only[0]}@{self._only[1]}" if self._only[1] != UNTOLD else str(self._name)


def _named(records: Records, lock: str) -> bool:
    return any(step.lock == lock for step in records.steps.values())


def _hidden(store: Store) -> Iterator[str]:
    """Yield the hidden files of a directory store that are not its own: no key names them."""
    place = store.local_path("ledger")
    if place is None:
        return
    root = place.parent
    for parent, folders, names in os.walk(root):
        if Path(parent) == root:
            folders[:] = [name for name in folders if name not in (".aside", ".locks")]
        yield from (Path(parent, name).relative_to(root).as_posix() for name in names if _is_hidden(root, parent, name))


def _is_hidden(root: object, parent: str, name: str) -> bool:
    return any(part.startswith(".") for part in (*Path(parent).relative_to(str(root)).parts, name))
