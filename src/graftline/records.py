"""Records: JSON beside every output that says what made it, out of what. Written and read here only.

A record is an in-toto Statement v1 (https://in-toto.io/Statement/v1) with a SLSA provenance v1 predicate
(https://slsa.dev/spec/v1.0/provenance) in canonical JSON (RFC 8785). It holds nothing that differs between two
runs with the same result: times, hosts and paths go into `execution.json` beside it, the signature over its bytes
into `record.dsse.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline import environment
from graftline.canonical import canonical_json, read_json
from graftline.digests import ENVELOPE, EXECUTION, RECORD, FileDigest, digest_files, list_files, sha256_bytes
from graftline.durable import write_atomic, write_new
from graftline.errors import InputError
from graftline.signing.envelope import STATEMENT_TYPE, seal
from graftline.signing.trusted import check_signed

if TYPE_CHECKING:
    from graftline.signing.keys import Keyring, Signer

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://graftline.dev/component/v1"
BUILDER = "https://graftline.dev/builder/v1"
COMPARED = "champion"
"""The input that an evaluation was only compared with: nothing of it went into the output."""

CODE = ("code", "requirements.lock", "image")
"""The dependencies that are what ran, not what it ran on."""

UNKNOWN_CHANGES = "unknown"
"""In the place of the digest of changes that a record tells of without it."""


@dataclass(frozen=True)
class Dependency:
    """One input: its name, its content's sha256 and, if a component made it, the sha256 of its record."""

    name: str
    sha256: str
    record: str | None = None
    annotations: dict[str, Any] = field(default_factory=dict)
    """What else to say of it, such as where it is from, its licence, and the files of a folder."""

    def as_descriptor(self) -> dict[str, Any]:
        """Return the in-toto ResourceDescriptor."""
        descriptor: dict[str, Any] = {"name": self.name, "digest": {"sha256": self.sha256}}
        annotations = self.annotations | ({"record": self.record} if self.record else {})
        if annotations:
            descriptor["annotations"] = annotations
        return descriptor


@dataclass(frozen=True)
class Record:
    """A record that was read and whose output's bytes were verified."""

    statement: dict[str, Any]
    sha256: str
    """Of the record's own bytes: the link that a later record holds."""

    @property
    def component(self) -> str:
        return str(self._definition["externalParameters"]["component"])

    @property
    def task(self) -> str:
        return str(self._definition["externalParameters"]["task"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The component's parameter sections after defaults, by section name."""
        return dict(self._definition["externalParameters"]["parameters"])

    @property
    def name(self) -> str:
        """The output's name, such as `trunk`."""
        return str(self.statement["subject"][0]["name"])

    @property
    def content(self) -> str:
        """The sha256 of the output's content."""
        return str(self.statement["subject"][0]["digest"]["sha256"])

    @property
    def dependencies(self) -> list[dict[str, Any]]:
        return list(self._definition["resolvedDependencies"])

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self._byproduct("metrics"))

    @property
    def files(self) -> list[FileDigest]:
        return [FileDigest(**file) for file in self._byproduct("files")["files"]]

    @property
    def environment(self) -> dict[str, Any]:
        """The determinism tuple; empty for a component that does not train."""
        return dict(self._byproduct("environment"))

    @property
    def _definition(self) -> dict[str, Any]:
        definition: dict[str, Any] = self.statement["predicate"]["buildDefinition"]
        return definition

    def _byproduct(self, name: str) -> dict[str, Any]:
        for byproduct in self.statement["predicate"]["runDetails"]["byproducts"]:
            if byproduct["name"] == name:
                annotations: dict[str, Any] = byproduct["annotations"]
                return annotations
        return {}


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


def write_record(
    folder: Path, draft: Draft, signer: Signer | None = None, made_before: Path | None = None
) -> Record:
    """Hash `folder` and put its record in it, last, and signed. The folder is not visible to readers yet.

    Args:
        signer: by default that of the keyring, which the first use makes. Raises InputError if there can be none.
        made_before: a folder of records of earlier outputs. The same output of the same inputs and parameters keeps
            the record of the first that made it, though other code has made it again: what stands on it stays.
    """
    if signer is None:
        from graftline.signing.keys import load_keyring

        signer = load_keyring().signer()
    files = list_files(folder)
    statement = _statement(draft, files)
    data = canonical_json(statement)
    envelope = seal(data, STATEMENT_TYPE, signer)
    if made_before is not None:
        data, envelope = _first_of(made_before, statement, data, envelope)
    write_new(folder / ENVELOPE, envelope)
    write_new(folder / RECORD, data)
    return Record(json.loads(data), sha256_bytes(data))


def _first_of(folder: Path, statement: dict[str, Any], data: bytes, envelope: bytes) -> tuple[bytes, bytes]:
    """Return the record and signature of the first output that differs in its code only; keep this one if it is it.

    A record of code that a commit has takes the place of one of uncommitted changes: who reads it can look it up.
    """
    definition = statement["predicate"]["buildDefinition"]
    inputs = [one for one in definition["resolvedDependencies"] if one["name"] not in CODE]
    predicate = statement["predicate"] | {"buildDefinition": definition | {"resolvedDependencies": inputs}}
    place = folder / sha256_bytes(canonical_json(statement | {"predicate": predicate}))
    if (place / RECORD).is_file():
        first = (place / RECORD).read_bytes()
        with suppress(InputError):  # signed by no key that is trusted any more
            check_signature(place)
            if _committed(json.loads(first)) or not _committed(statement):
                return first, (place / ENVELOPE).read_bytes()
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(place / ENVELOPE, envelope)
    write_atomic(place / RECORD, data)
    return data, envelope


def _committed(statement: dict[str, Any]) -> bool:
    """Return whether the code that a record names is that of a commit."""
    named = {one["name"]: one for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    return "code" in named and code_of(named["code"])[1] is None


def _statement(draft: Draft, files: list[FileDigest]) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [{"name": draft.output, "digest": {"sha256": digest_files(files)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "component": draft.component, "task": draft.task, "parameters": draft.parameters,
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
    }  # fmt: skip


def code_dependencies(task: str) -> list[dict[str, Any]]:
    """Return what ran: commit (and the digest of a dirty diff), environment lock, image; absent ones left out."""
    found: list[dict[str, Any]] = []
    revision = environment.code_revision(task)
    if "commit" in revision:
        code: dict[str, Any] = {"name": "code", "digest": {"gitCommit": revision["commit"]}}
        if "dirty" in revision:
            code["annotations"] = {"dirty": revision["dirty"]}
        found.append(code)
    if lock := environment.lock_digest():
        found.append({"name": "requirements.lock", "digest": {"sha256": lock}})
    if image := environment.image_digest():
        found.append({"name": "image", "digest": {"sha256": image.removeprefix("sha256:")}})
    return found


def code_of(dependency: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the commit that the dependency named `code` gives, and the sha256 of what differed from it, if anything.

    Images of a checkout with changes named their code `<commit>-dirty` once, and said no more.
    """
    commit: str = dependency["digest"]["gitCommit"]
    dirty = dependency["annotations"].get("dirty") if "annotations" in dependency else None
    if commit.endswith("-dirty"):
        return commit.removesuffix("-dirty"), dirty or UNKNOWN_CHANGES
    return commit, dirty


def read_record(folder: Path) -> Record:
    """Return the record in `folder` without hashing the content. Raises InputError if it is missing or malformed."""
    path = folder / RECORD
    if not folder.is_dir():
        raise InputError(folder, "no such folder", fix="run the stage that makes it")
    statement = read_json(path)
    record = Record(statement, sha256_bytes(path.read_bytes()))
    try:
        if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
            raise InputError(path, "an unknown type of statement", expected=f"{STATEMENT} with {PREDICATE}")
        _ = (
            record.component,
            record.task,
            record.name,
            record.dependencies,
            record.parameters,
            record.metrics,
        )
        _check_dependencies(record.dependencies)
        listed = digest_files(record.files)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InputError(path, f"not a record ({error!r})", fix="run the stage that makes it again") from None
    if listed != record.content:
        raise InputError(
            path,
            "its list of files does not give the digest that it names",
            fix="run the stage that makes it again",
        )
    return record


def _check_dependencies(dependencies: list[dict[str, Any]]) -> None:
    """Raise KeyError, TypeError or ValueError unless each has a name and a digest, as read_record's callers expect."""
    for dependency in dependencies:
        if not isinstance(dependency["name"], str) or not all(
            isinstance(v, str) for v in dependency["digest"].values()
        ):
            raise ValueError("a dependency without a name or a digest")
        if not isinstance(dependency.get("annotations", {}), dict):
            raise TypeError("a dependency's annotations are no mapping")


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
        from graftline.signing.keys import load_keyring

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
