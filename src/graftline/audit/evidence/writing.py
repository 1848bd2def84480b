"""The evidence of a release: one zip file with all that an outsider needs to check where a model came from.

index.html index.json        what is here, in the order of Annex IV of the EU AI Act
verify.py                    checks all of it: standard library and `cryptography` only
files.json files.dsse.json   path, size and sha256 of every other file; the signature over that list
release/                     manifest, model card, metrics, plots, model signature; the weights only if asked for
records/ signatures/ keys/   every record from the release to the raw data, its envelopes, the public keys
ledger/                      entries, inclusion proofs, the checkpoint that they lead to
maker.pem                    the public key of whoever made the file, if the ledger does not know it
locks/ datasheet.md metrics.json exports/
run.json                     of a cluster's release: why the run was started, its steps, how it ended; unsigned notes

The same release, ledger and key give the same bytes: no time is written, files are stored uncompressed in the order
of their paths, and a local key signs deterministically (RFC 6979).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.audit.evidence import annex
from graftline.audit.evidence.ledger import LedgerPart, ledger_part
from graftline.audit.evidence.page import page
from graftline.canonical import canonical_json
from graftline.digests import FileDigest, sha256_bytes, sha256_file
from graftline.durable import fsync_directory
from graftline.errors import InputError
from graftline.exports import croissant, mlbom, prov, slsa
from graftline.exports.datasheet import Datasheet, read_datasheet
from graftline.exports.facts import Facts, read_facts
from graftline.exports.values import intervals
from graftline.index.parsing import run_id
from graftline.lineage.run import read_run
from graftline.releases.catalogue import Release
from graftline.releases.layout import release_key
from graftline.signing.envelope import open_envelope, seal, signers
from graftline.store import Store

if TYPE_CHECKING:
    from graftline.ledger.checkpoint import TreeHead
    from graftline.signing.keys import Signer

FORMAT = "https://graftline.dev/evidence/v1"
LIST_TYPE = "application/vnd.graftline.evidence+json"
LIST, LIST_SIGNATURE, INDEX, PAGE = "files.json", "files.dsse.json", "index.json", "index.html"
MAKER = "maker.pem"
VERIFIER = Path(__file__).with_name("verifier.py")
_WEIGHTS = (".safetensors", ".onnx", ".bin", ".gguf", ".pt")
_LARGEST = 8 << 20
"""Bytes of a release's file above which it counts as the model's own bytes."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can give."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """What goes into the file."""

    members: Mapping[str, bytes]
    """Everything small, by path."""
    weights: tuple[FileDigest, ...]
    """Files of the release that are streamed into release/: the model's own bytes, if they were asked for."""
    facts: Facts
    index: Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """What was written."""

    path: Path
    sha256: str
    verifier: str
    """The sha256 of verify.py."""
    key: str
    """The id of the key that signed list and checkpoint."""
    is_known: bool
    """Whether the ledger knows that key."""
    index: Mapping[str, Any]


def write_evidence(
    store: Store, release: Release, out: Path, signer: Signer, *, checkout: Path, with_model: bool = False,
    kept: Iterable[TreeHead] = (), progress: Progress = lambda line: None,
) -> Written:  # fmt: skip
    """Write the evidence of `release` to `out`, aside and then renamed.

    Args:
        signer: signs the list and the checkpoint. If the ledger does not know its key, the file says so: it is made
            by someone who may read the store, and nothing is written to it.
        checkout: where the data sheet is looked for.
        with_model: whether the model's own bytes go in too.
        kept: earlier checkpoints of the ledger, from which it is to be proved that it only grew.
        progress: called with what is being done.

    Raises:
        InputError: something of the release is missing, changed or not signed by a key that the ledger trusts.
        RefusalError: the ledger trusts the signer's key no more: it was retired or revoked.
    """
    progress(f"collecting {release.name}")
    evidence = collect(store, release, signer, checkout=checkout, with_model=with_model, kept=kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        _write_zip(aside, evidence, progress)
        digest = sha256_file(aside)
        aside.rename(out)
    finally:
        aside.unlink(missing_ok=True)
    fsync_directory(out.parent)
    verifier, is_known = sha256_bytes(evidence.members["verify.py"]), MAKER not in evidence.members
    return Written(out, digest, verifier, signer.keyid, is_known, evidence.index)


def collect(
    store: Store,
    release: Release,
    signer: Signer,
    *,
    checkout: Path,
    with_model: bool = False,
    kept: Iterable[TreeHead] = (),
) -> Contents:
    """Return everything that goes in. Raises as write_evidence."""
    facts = read_facts(store, release)
    ledger = ledger_part(store, release, signer, kept)
    sheet = read_datasheet(facts, checkout)
    members = _records(facts, ledger) | dict(ledger.files) | _exports(facts, sheet)
    members |= {f"keys/{keyid}.pem": key.pem.encode() for keyid, key in ledger.keys.items()}
    if ledger.maker is not None:
        members[MAKER] = ledger.maker.pem.encode()
    members["release/manifest.json"] = facts.manifest_data
    weights = tuple(file for file in facts.files if file.path.endswith(_WEIGHTS) or file.size > _LARGEST)
    for file in facts.files:
        if file not in weights and (data := facts.read(file.path)) is not None:
            members[f"release/{file.path}"] = data
    if sheet:
        members["datasheet.md"] = sheet.text.encode()
    members |= _locks(store, facts) | _run(store, facts)
    members["metrics.json"] = _json(_measured(facts))
    members["verify.py"] = VERIFIER.read_bytes()
    index = _index(facts, ledger, members, sheet, weights, with_model)
    pictures = {path: data for path, data in members.items() if path.startswith("release/") and path.endswith(".png")}
    members |= {INDEX: _json(index), PAGE: page(index, pictures)}
    inside = weights if with_model else ()
    listed = _listed(members) + [FileDigest(f"release/{f.path}", f.size, f.sha256) for f in inside]
    members[LIST] = canonical_json(
        {
            "format": FORMAT,
            "release": release.name,
            "manifest": release.manifest,
            "files": [file.as_dict() for file in sorted(listed)],
        }
    )
    members[LIST_SIGNATURE] = seal(members[LIST], LIST_TYPE, signer)
    return Contents(members, inside, facts, index)


def _records(facts: Facts, ledger: LedgerPart) -> dict[str, bytes]:
    """Return each record and its envelopes by keys that the ledger trusts. Raises InputError where there is none."""
    found: dict[str, bytes] = {}
    trusted = {keyid: ledger.keys[keyid] for keyid in ledger.trusted}
    for step in facts.steps:
        digest, signed = step.record.sha256, False
        found[f"records/{digest}.json"] = step.data
        for key in facts.store.list(f"signatures/{digest}/"):
            data = facts.store.get(key).data
            envelope = open_envelope(data, where=f"{facts.store.url}/{key}")
            by = signers(envelope, trusted)
            if envelope.payload == step.data and by and len(by) == len(envelope.signatures):
                found[f"signatures/{digest}/{by[0]}.json"], signed = data, True
        if not signed:
            raise InputError(
                f"{facts.store.url}/signatures/{digest}",
                f"no signature of the record of {step.record.name} by a key that the ledger trusts",
                expected=f"one by {', '.join(sorted(trusted))}",
                fix="enter the key with `graftline keys trust`, or release the model again: publish signs",
            )
    return found


def _exports(facts: Facts, sheet: Datasheet | None) -> dict[str, bytes]:
    found = {
        "exports/slsa.intoto.jsonl": slsa.bundle(facts),
        "exports/mlbom.cdx.json": mlbom.bom(facts),
        "exports/prov.json": prov.document([facts]),
    }
    if "dataset" in facts.named:
        found["exports/croissant.json"] = croissant.metadata(facts, sheet)
    return found


def _locks(store: Store, facts: Facts) -> dict[str, bytes]:
    """Return the locks that the records name, those that the store has."""
    named = {step.record.lock for step in facts.steps} - {None}
    found = {}
    for digest in sorted(filter(None, named)):
        for key in store.list(f"locks/{digest}.txt"):
            data = store.get(key).data
            if sha256_bytes(data) != digest:
                raise InputError(f"{store.url}/{key}", f"sha256 {sha256_bytes(data)}", expected=digest)
            found[key] = data
    return found


def _run(store: Store, facts: Facts) -> dict[str, bytes]:
    """Return what the store knows of the run that published the release, if a run did."""
    run = run_id(facts.manifest["publication"])
    found = read_run(store, run) if run else None
    return {"run.json": _json(found.as_dict())} if found and (found.start or found.attempts) else {}


def _measured(facts: Facts) -> list[dict[str, Any]]:
    """Return each metric of the release, with its 95% interval where there is one."""
    return [
        {"name": name, "value": value} | ({"low": bounds[0], "high": bounds[1]} if bounds else {})
        for name, value, bounds in intervals(facts.manifest["metrics"])
    ]


def _index(
    facts: Facts,
    ledger: LedgerPart,
    members: Mapping[str, bytes],
    sheet: Datasheet | None,
    weights: tuple[FileDigest, ...],
    with_model: bool,
) -> dict[str, Any]:
    release, inside = facts.release, weights if with_model else ()
    return {
        "format": FORMAT,
        "release": {
            "name": release.name, "created": release.created, "content": release.digest, "manifest": release.manifest,
        },
        "ledger": {
            "size": ledger.size, "first_key": ledger.first_key, "checkpoint_key": ledger.checkpoint_key,
            "knows_checkpoint_key": ledger.maker is None,
        },
        "datasheet": sheet.source if sheet else None, "with_model": with_model,
        "metrics": _measured(facts), "annex_source": annex.SOURCE,
        "annex_iv": annex.index([*members, *(f"release/{file.path}" for file in inside)]),
        "files": [file.as_dict() for file in _listed(members)],
        "by_digest_only": [] if with_model else [file.as_dict() for file in weights],
    }  # fmt: skip


def _listed(members: Mapping[str, bytes]) -> list[FileDigest]:
    return sorted(FileDigest(path, len(data), sha256_bytes(data)) for path, data in members.items())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _write_zip(path: Path, evidence: Contents, progress: Progress) -> None:
    weights = {f"release/{file.path}": file for file in evidence.weights}
    with path.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted([*evidence.members, *weights]):
            if name in weights:
                progress(f"adding {name}")
                _add_large(archive, name, weights[name], evidence.facts)
            else:
                archive.writestr(_info(name), evidence.members[name])


def _add_large(archive: zipfile.ZipFile, name: str, listed: FileDigest, facts: Facts) -> None:
    """Copy a file of the release into the archive, comparing it with the manifest. Raises InputError."""
    info = _info(name)
    info.file_size = listed.size
    key, digest = f"{release_key(facts.release.task, facts.release.version)}/{listed.path}", hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        local = facts.store.local_path(key) or Path(folder) / "file"
        if not local.exists():
            facts.store.download(key, local)
        with local.open("rb") as source, archive.open(info, "w") as target:
            while part := source.read(1 << 20):
                digest.update(part)
                target.write(part)
    if digest.hexdigest() != listed.sha256:
        raise InputError(f"{facts.store.url}/{key}", f"sha256 {digest.hexdigest()}", expected=listed.sha256)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_STORED
    return info
