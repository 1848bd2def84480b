"""What a record says, and the only code that reads it out of a statement.

`take_apart` knows where each fact stands in the JSON and checks nothing else: the index goes through a million records
by it. `parse_record` makes a `Record` of it, in which every value has the type that it is declared with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graftline.canonical import parse_json
from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import InputError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://graftline.dev/component/v1"
BUILDER = "https://graftline.dev/builder/v1"

# The names of dependencies. What ran:
CODE, LOCK, IMAGE = "code", "requirements.lock", "image"
# What went in from outside; the other inputs are outputs of earlier steps and named as these are.
RAW, EXPECTATIONS, CORPUS = "raw", "expectations", "corpus"
ROOTSTOCK = "rootstock"
"""The checkpoint that pretraining began with."""
COMPARED = "champion"
"""The input that an evaluation was only compared with: nothing of it went into the output."""

UNKNOWN_CHANGES = "unknown"
"""In the place of the digest of changes that a record tells of without it."""


class NotARecordError(ValueError):
    """A statement of another type."""


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

    @property
    def files(self) -> list[FileDigest]:
        """The files of a folder from outside, where the record lists them: its annotations may hold anything."""
        listed = self.annotations.get("files")
        whole = [f for f in listed if isinstance(f, dict)] if isinstance(listed, list) else []
        return [
            FileDigest(f["path"], f["size"], f["sha256"])
            for f in whole
            if (type(f.get("path")), type(f.get("size")), type(f.get("sha256"))) == (str, int, str)
        ]


@dataclass(frozen=True)
class Record:
    """What a record says."""

    sha256: str
    """Of the record's own bytes: the link that a later record holds."""
    component: str
    task: str
    name: str
    """The output's name, such as `trunk`."""
    content: str
    """The sha256 of the output's content."""
    parameters: dict[str, Any]
    """The component's parameter sections after defaults, by section name."""
    metrics: dict[str, Any]
    environment: dict[str, Any]
    """The determinism tuple; empty for a component that does not train."""
    files: list[FileDigest]
    """Of the output."""
    inputs: list[Dependency]
    """In the record's order; code, lock and image are not among them."""
    commit: str | None
    dirty: str | None
    """The sha256 of what differed from the commit, or UNKNOWN_CHANGES; None if nothing did."""
    lock: str | None
    """The sha256 of the lock that the environment was installed from."""
    image: str | None
    """The sha256 of the container image."""

    @property
    def what_ran(self) -> dict[str, str]:
        """The digests of commit, lock and image by the dependency's name, those that it has."""
        named = {CODE: self.commit, LOCK: self.lock, IMAGE: self.image}
        return {name: digest for name, digest in named.items() if digest is not None}

    def input(self, name: str) -> Dependency | None:
        """Return the input of that name; None if there is none."""
        return next((given for given in self.inputs if given.name == name), None)


class Parts(NamedTuple):
    """The facts of a statement as they stand in its JSON, of whatever type."""

    component: Any
    task: Any
    name: Any
    content: Any
    commit: Any
    dirty: Any
    lock: Any
    image: Any
    parameters: Any
    metrics: Any
    environment: Any
    files: Any
    inputs: list[tuple[Any, Any, Any, Any]]
    """Name, sha256, record and annotations of each; the annotations are None or lack the record."""


def take_apart(statement: Any) -> Parts:
    """Return the facts of a record's JSON, which is used up: the parts hold pieces of it, changed.

    Raises:
        NotARecordError: it is a statement of another type.
        KeyError, TypeError, IndexError, ValueError, AttributeError: it is no record.
    """
    if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
        raise NotARecordError("an unknown type of statement")
    predicate, (subject, *_) = statement["predicate"], statement["subject"]
    definition = predicate["buildDefinition"]
    external = definition["externalParameters"]
    products = {product["name"]: product["annotations"] for product in predicate["runDetails"]["byproducts"]}
    commit = dirty = lock = image = None
    inputs = []
    for descriptor in definition["resolvedDependencies"]:
        name, digest = descriptor["name"], descriptor["digest"]
        if name == CODE:
            commit, dirty = _code_of(descriptor)
        elif name == LOCK:
            lock = digest["sha256"]
        elif name == IMAGE:
            image = digest["sha256"]
        elif "annotations" in descriptor:
            annotations = descriptor["annotations"]
            record = annotations.pop("record", None)
            inputs.append((name, digest["sha256"], record, annotations or None))
        else:
            inputs.append((name, digest["sha256"], None, None))
    return Parts(
        external["component"], external["task"], subject["name"], subject["digest"]["sha256"],
        commit, dirty, lock, image,
        external["parameters"], products.get("metrics", {}), products.get("environment", {}),
        products["files"]["files"], inputs,
    )  # fmt: skip


def _code_of(descriptor: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the commit that the dependency named `code` gives, and the sha256 of what differed from it, if anything.

    Images of a checkout with changes named their code `<commit>-dirty` once, and said no more.
    """
    commit: str = descriptor["digest"]["gitCommit"]
    dirty = descriptor["annotations"].get("dirty") if "annotations" in descriptor else None
    if commit.endswith("-dirty"):
        return commit.removesuffix("-dirty"), dirty or UNKNOWN_CHANGES
    return commit, dirty


def parse_record(data: bytes, where: object, *, fix: str = "run the stage that makes it again") -> Record:
    """Return the record in `data`, whose output was not looked at.

    Args:
        where: for errors, as is `fix`.

    Raises:
        InputError: it is none, a value is of another type, or its list of files is not what its subject names.
    """
    statement = parse_json(data, where, fix=fix)
    try:
        record = _typed(take_apart(statement), sha256_bytes(data))
        listed = digest_files(record.files)
    except NotARecordError as error:
        raise InputError(where, str(error), expected=f"{STATEMENT} with {PREDICATE}", fix=fix) from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InputError(where, f"not a record ({error!r})"[:300], fix=fix) from None
    if listed != record.content:
        raise InputError(where, "its list of files does not give the digest that it names", fix=fix)
    return record


def _typed(parts: Parts, sha256: str) -> Record:
    """Return a record of these parts. Raises TypeError for a part of another type, ValueError for what is no sha256."""
    return Record(
        sha256, _text(parts.component), _text(parts.task), _text(parts.name), _digest(parts.content),
        _mapping(parts.parameters), _mapping(parts.metrics), _mapping(parts.environment),
        [FileDigest(_text(f["path"]), _size(f["size"]), _digest(f["sha256"])) for f in parts.files],
        [
            Dependency(_text(name), _digest(sha256), _optional_digest(record), _mapping(notes or {}))
            for name, sha256, record, notes in parts.inputs
        ],
        None if parts.commit is None else _text(parts.commit),
        None if parts.dirty is None else _text(parts.dirty),
        _optional_digest(parts.lock), _optional_digest(parts.image),
    )  # fmt: skip


_SHA256 = re.compile(r"[0-9a-f]{64}")


def flat(values: Any, path: str = "") -> dict[str, Any]:
    """Return nested mappings of a record as one, by dotted path."""
    if not isinstance(values, dict) or (path and not values):
        return {path: values} if path else {}
    return {
        key: value
        for name, nested in values.items()
        for key, value in flat(nested, f"{path}.{name}" if path else str(name)).items()
    }


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"a {type(value).__name__} where a string is expected")
    return value


def _size(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"a {type(value).__name__} where a size is expected")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"a {type(value).__name__} where a mapping is expected")
    return value


def _digest(value: Any) -> str:
    """Return a sha256: it becomes a store's key."""
    if not _SHA256.fullmatch(_text(value)):
        raise ValueError(f"{value[:80]!r} is no sha256")
    return str(value)


def _optional_digest(value: Any) -> str | None:
    return None if value is None else _digest(value)
