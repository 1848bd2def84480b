"""The record of an output folder: written into it last, read back, and compared with every byte beside it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline import environment
from graftline.canonical import canonical_json, read_json
from graftline.digests import ENVELOPE, EXECUTION, RECORD, FileDigest, digest_files, list_files, sha256_bytes
from graftline.durable import write_atomic, write_new
from graftline.errors import InputError
from graftline.records.model import (
    BUILD_TYPE,
    BUILDER,
    CODE,
    IMAGE,
    LOCK,
    PREDICATE,
    STATEMENT,
    Dependency,
    Record,
    parse_record,
)
from graftline.signing.envelope import STATEMENT_TYPE, seal
from graftline.signing.keyring import Keyring, load_keyring
from graftline.signing.trusted import check_signed

if TYPE_CHECKING:
    from graftline.signing.keys import Signer


@dataclass
class Draft:
    """What a component run knows before its output is hashed."""

    component: str
    task: str
    output: str
    parameters: dict[str, Any] = field(default_factory=dict)
    dependencies: list[Dependency] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    code: list[dict[str, Any]] = field(default_factory=list)
    """What runs, as it was when the run began: an edit made meanwhile is not what made the output."""

    def __post_init__(self) -> None:
        self.code = self.code or code_dependencies(self.task)


def write_record(folder: Path, draft: Draft, signer: Signer | None = None, made_before: Path | None = None) -> Record:
    """Hash `folder` and put its record in it, last, and signed. The folder is not visible to readers yet.

    Args:
        signer: by default that of the keyring, which the first use makes. Raises InputError if there can be none.
        made_before: a folder of records of earlier outputs. The same output of the same inputs and parameters keeps
            the record of the first that made it, though other code has made it again: what stands on it stays. It must
            be signed by this signer, and its commit must still be here.
    """
    if signer is None:
        signer = load_keyring().signer()
    files = list_files(folder)
    statement = _statement(draft, files)
    data = canonical_json(statement)
    record = parse_record(data, folder / RECORD, fix="correct the component: it says what no reader takes")
    envelope = seal(data, STATEMENT_TYPE, signer)
    if made_before is not None:
        data, envelope = _first_of(made_before, statement, record, envelope, signer)
        record = parse_record(data, made_before)
    write_new(folder / ENVELOPE, envelope)
    write_new(folder / RECORD, data)
    return record


def _first_of(
    folder: Path, statement: dict[str, Any], record: Record, envelope: bytes, signer: Signer
) -> tuple[bytes, bytes]:
    """Return the record and signature of the first output that differs in its code only; keep this one if it is it.

    A record of code that a commit has takes the place of one of uncommitted changes: who reads it can look it up.
    """
    data = canonical_json(statement)
    place = folder / _digest_but_for_code(statement)
    if (place / RECORD).is_file():
        with suppress(InputError):  # signed by no key that is trusted any more
            signed = signer.keyid in check_signature(place)
            first = read_record(place)
            same = _digest_but_for_code(read_json(place / RECORD)) == place.name
            here = first.commit is None or environment.has_commit(first.commit)
            if signed and same and here and (_committed(first) or not _committed(record)):
                return (place / RECORD).read_bytes(), (place / ENVELOPE).read_bytes()
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(place / ENVELOPE, envelope)
    write_atomic(place / RECORD, data)
    return data, envelope


def _digest_but_for_code(statement: dict[str, Any]) -> str:
    definition = statement["predicate"]["buildDefinition"]
    inputs = [one for one in definition["resolvedDependencies"] if one["name"] not in (CODE, LOCK, IMAGE)]
    predicate = statement["predicate"] | {"buildDefinition": definition | {"resolvedDependencies": inputs}}
    return sha256_bytes(canonical_json(statement | {"predicate": predicate}))


def _committed(record: Record) -> bool:
    """Return whether the code that a record names is that of a commit."""
    return record.commit is not None and record.dirty is None


def _statement(draft: Draft, files: list[FileDigest]) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [{"name": draft.output, "digest": {"sha256": digest_files(files)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "component": draft.component,
                    "task": draft.task,
                    "parameters": draft.parameters,
                },
                "resolvedDependencies": [d.as_descriptor() for d in draft.dependencies] + draft.code,
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "byproducts": [
                    {"name": "metrics", "annotations": draft.metrics},
                    {"name": "environment", "annotations": draft.environment},
                    {"name": "files", "annotations": {"files": [file.as_dict() for file in files]}},
                ],
            },
        },
    }


def code_dependencies(task: str) -> list[dict[str, Any]]:
    """Return what ran: commit (and the digest of a dirty diff), environment lock, image; absent ones left out."""
    found: list[dict[str, Any]] = []
    revision = environment.code_revision(task)
    if "commit" in revision:
        code: dict[str, Any] = {"name": CODE, "digest": {"gitCommit": revision["commit"]}}
        if "dirty" in revision:
            code["annotations"] = {"dirty": revision["dirty"]}
        found.append(code)
    if lock := environment.lock_digest():
        found.append({"name": LOCK, "digest": {"sha256": lock}})
    if image := environment.image_digest():
        found.append({"name": IMAGE, "digest": {"sha256": image.removeprefix("sha256:")}})
    return found


def read_record(folder: Path) -> Record:
    """Return the record in `folder` without hashing the content. Raises InputError if it is missing or malformed."""
    if not folder.is_dir():
        raise InputError(folder, "no such folder", fix="run the stage that makes it")
    path = folder / RECORD
    try:
        return parse_record(path.read_bytes(), path)
    except FileNotFoundError:
        raise InputError(path, "the file is missing", fix="run the stage that makes it") from None


def verify(folder: Path, keyring: Keyring | None = None) -> Record:
    """Return the record of `folder` after checking its signature and comparing every byte of the folder with it.

    Raises:
        InputError: a file is extra, missing or different, the record is not one, or no trusted key signed it.
    """
    record = read_record(folder)
    check_signature(folder, keyring)
    actual = list_files(folder)
    if digest_files(actual) != record.content:
        raise InputError(folder, _difference(record.files, actual), fix="run the stage that makes it again")
    return record


def check_signature(folder: Path, keyring: Keyring | None = None) -> list[str]:
    """Return the ids of the trusted keys that signed the record in `folder`.

    Raises:
        InputError: it is not signed, by no key that is trusted here, or the signature does not fit: each says so.
    """
    if keyring is None:
        keyring = load_keyring(create=False)
    path = folder / ENVELOPE
    envelope = path.read_bytes() if path.is_file() else None
    return check_signed((folder / RECORD).read_bytes(), STATEMENT_TYPE, envelope, keyring, where=path)


def _difference(expected: list[FileDigest], actual: list[FileDigest]) -> str:
    want = {file.path: file.sha256 for file in expected}
    have = {file.path: file.sha256 for file in actual}
    parts = [f"extra file {path}" for path in sorted(have.keys() - want.keys())]
    parts += [f"missing file {path}" for path in sorted(want.keys() - have.keys())]
    parts += [
        f"{path} has sha256 {have[path]}, its record says {want[path]}"
        for path in sorted(want.keys() & have.keys())
        if want[path] != have[path]
    ]
    return "content differs from its record: " + "; ".join(parts)


def write_execution(folder: Path, facts: dict[str, Any]) -> None:
    """Put the facts of one execution (times, host, engine) beside the record; they are no part of identity."""
    write_new(folder / EXECUTION, canonical_json(facts))


def read_execution(folder: Path) -> dict[str, Any]:
    """Return the execution facts that belong to the record in `folder`, or {} if there are none."""
    path = folder / EXECUTION
    if not path.is_file():
        return {}
    facts: dict[str, Any] = read_json(path)
    return facts if facts.get("record") == sha256_bytes((folder / RECORD).read_bytes()) else {}
