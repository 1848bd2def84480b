"""The chain of a release as diff reads it: each step's own inputs, flat, by the digest of its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.records import code_of
from graftline.releases.catalogue import resolve
from graftline.releases.layout import RECORDS, read_manifest, release_key
from graftline.store import MissingError

if TYPE_CHECKING:
    from graftline.store import Store

CODE, LOCK, IMAGE = "code", "requirements.lock", "image"
"""Dependencies that are no data: what ran."""
ROOTSTOCK = "rootstock"
"""The checkpoint that pretraining began with."""


@dataclass(frozen=True)
class Given:
    """One input of a step."""

    sha256: str
    record: str | None
    """The sha256 of the record of the step that made it; None for what came from outside."""
    files: dict[str, str]
    """The sha256 of each file by path, where the record lists them."""
    is_checkpoint: bool
    """Whether it is a model to begin with."""


@dataclass(frozen=True)
class Step:
    """One step by its record."""

    name: str
    """The output's name."""
    content: str
    """The sha256 of the output's content."""
    parameters: dict[str, Any]
    """By dotted path."""
    inputs: dict[str, Given]
    commit: str | None
    dirty: str | None
    """The sha256 of what differed from the commit; None if nothing did."""
    lock: str | None
    image: str | None
    environment: dict[str, Any]
    files: dict[str, str]
    """The sha256 of each file of the output by path."""

    def made_by(self, name: str) -> str | None:
        """Return the sha256 of the record of the step that made an input."""
        given = self.inputs.get(name)
        return given.record if given else None


@dataclass(frozen=True)
class Chain:
    """A release and all steps behind it."""

    name: str
    content: str
    """The release's content digest."""
    metrics: Mapping[str, Any]
    compared_with: tuple[int, str] | None
    """Version and content digest of the champion at evaluation."""
    version: int
    outputs: dict[str, str]
    """The sha256 of each record that the release names, by output, in the order in which steps run."""
    steps: dict[str, Step]
    """By the sha256 of the record."""


def read_chain(store: Store, reference: str) -> Chain:
    """Return the chain of `task@version` or `task@alias`.

    Raises:
        InputError: there is no such release, or one of its records is missing, changed, or none.
    """
    release = resolve(store, reference)
    manifest = read_manifest(store, release.task, release.version, expected=release.manifest)
    folder = f"{release_key(release.task, release.version)}/{RECORDS}"
    named = {str(name): str(digest) for name, digest in manifest.get("records", {}).items()}
    places = {digest: f"{folder}{name}.json" for name, digest in named.items()}
    steps: dict[str, Step] = {}
    _read_steps(store, places, steps)
    compared = manifest.get("compared_with")
    return Chain(
        name=release.name, content=release.digest, metrics=manifest.get("metrics") or {},
        compared_with=(compared["version"], compared["digest"]) if compared else None, version=release.version,
        outputs=_in_order(named, steps), steps=steps,
    )  # fmt: skip


def _read_steps(store: Store, places: dict[str, str], steps: dict[str, Step]) -> None:
    """Read records and those behind them, by digest, into `steps`."""
    waiting = list(places)
    while waiting:
        digest = waiting.pop()
        if digest in steps:
            continue
        steps[digest] = step_of(*_read_statement(store, digest, places.get(digest)))
        waiting += [given.record for given in steps[digest].inputs.values() if given.record]


def _read_statement(store: Store, digest: str, place: str | None) -> tuple[dict[str, Any], str]:
    key = f"records/{digest}.json"
    for candidate in filter(None, (key, place)):
        try:
            data = store.get(candidate).data
        except MissingError:
            continue
        where = f"{store.url}/{candidate}"
        if sha256_bytes(data) != digest:
            raise InputError(
                where, f"sha256 {sha256_bytes(data)}", expected=digest, fix="run `graftline verify`"
            )
        try:
            statement = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InputError(where, f"not JSON ({error})", fix="run `graftline verify`") from None
        return statement, where
    raise InputError(f"{store.url}/{key}", "missing", fix="run `graftline verify`")


def step_of(statement: dict[str, Any], where: str) -> Step:
    """Return what a record's statement says of its step. Raises InputError if it is none."""
    try:
        definition = statement["predicate"]["buildDefinition"]
        subject = statement["subject"][0]
        by_name = {str(d["name"]): d for d in definition["resolvedDependencies"]}
        facts = {b["name"]: b["annotations"] for b in statement["predicate"]["runDetails"]["byproducts"]}
        commit, dirty = code_of(by_name[CODE]) if CODE in by_name else (None, None)
        return Step(
            name=str(subject["name"]), content=str(subject["digest"]["sha256"]),
            parameters=_flat(definition["externalParameters"]["parameters"]),
            inputs={n: _given(d) for n, d in by_name.items() if n not in (CODE, LOCK, IMAGE)},
            commit=commit, dirty=dirty,
            lock=by_name.get(LOCK, {}).get("digest", {}).get("sha256"),
            image=by_name.get(IMAGE, {}).get("digest", {}).get("sha256"),
            environment=_flat(facts.get("environment", {})), files=_files(facts.get("files", {})),
        )  # fmt: skip
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise InputError(where, f"not a record ({error!r})", fix="run `graftline verify`") from None


def _given(dependency: dict[str, Any]) -> Given:
    annotations = dependency.get("annotations", {})
    return Given(
        sha256=str(dependency["digest"]["sha256"]), record=annotations.get("record"), files=_files(annotations),
        is_checkpoint=dependency["name"] == ROOTSTOCK,
    )  # fmt: skip


def _files(annotations: dict[str, Any]) -> dict[str, str]:
    return {str(file["path"]): str(file["sha256"]) for file in annotations.get("files") or []}


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted path."""
    if not isinstance(values, dict) or (path and not values):
        return {path: values} if path else {}
    return {
        key: value
        for name, nested in values.items()
        for key, value in _flat(nested, f"{path}.{name}" if path else str(name)).items()
    }


def _in_order(named: dict[str, str], steps: dict[str, Step]) -> dict[str, str]:
    """Return the outputs sorted so that each comes after those that it was made from."""

    def depth(digest: str, below: frozenset[str] = frozenset()) -> int:
        if digest in below:  # a chain that bites its tail was not made by Graftline
            return 0
        behind = [g.record for g in steps[digest].inputs.values() if g.record] if digest in steps else []
        return 1 + max((depth(record, below | {digest}) for record in behind), default=0)

    return dict(sorted(named.items(), key=lambda item: (depth(item[1]), item[0])))
