#!/usr/bin/env python3
"""Verify an evidence file of a model release, with Python 3.11 or later and the package `cryptography`, nothing else.

    python verify.py EVIDENCE.zip [--key FINGERPRINT]... [--checkpoint TEXT|FILE] [--release FOLDER] [--json]

Every file is compared with the signed list; every record and ledger entry with its signature; the records with one
another, from the release to the raw data; the manifest with the records and with the ledger; the ledger entries with
the signed checkpoint (RFC 6962). What signs what is in docs/exports.md of Graftline.

FINGERPRINT is the sha256 of a public key that you know from elsewhere: it must be the one that the ledger began with,
or the one that signed the checkpoint. Without it the answer is only that the evidence agrees with itself.
A file may be made by someone who could only read the store: it holds his key, which the ledger does not know, and then
it is that key that you must know. He vouches for the list: data sheet, exports, and that no entry was left out.
TEXT is a checkpoint of the ledger that you kept: the ledger must hold all that it held then, unchanged.
FOLDER holds the release's files, which are then compared with the manifest as well.

Exit codes: 0 all of it holds; 1 something does not; 2 it cannot be checked.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
except ImportError as error:
    print(f"{error}: pip install cryptography", file=sys.stderr)
    sys.exit(2)

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
STATEMENT_TYPE = "application/vnd.in-toto+json"
ENTRY_TYPE = "application/vnd.graftline.ledger-entry+json"
LIST_TYPE = "application/vnd.graftline.evidence+json"
ORIGIN = "graftline.dev/ledger/"
LIST, LIST_SIGNATURE, CHECKPOINT, PROOFS = (
    "files.json",
    "files.dsse.json",
    "ledger/checkpoint.txt",
    "ledger/proofs.json",
)
MANIFEST, MODEL_SIGNATURE, MAKER = "release/manifest.json", "release/model.sig", "maker.pem"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 28
"""Bytes that are read at once; only a model's own files are larger, and those are read in parts."""
_DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError)


class UnusableError(Exception):
    """There is nothing to check."""


class DiffersError(Exception):
    """Something does not hold; the text says what."""


@dataclass
class Check:
    """One line of the table."""

    name: str
    count: int = 0
    """How many things hold."""
    problems: list[str] = field(default_factory=list)
    note: str = ""


class Files:
    """The members of a zip, or of a folder into which it was unpacked."""

    def __init__(self, path: Path) -> None:
        self.zip: zipfile.ZipFile | None = None
        self.folder = path
        if path.is_dir():
            found = [p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()]
        else:
            try:
                self.zip = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile, ValueError) as error:
                raise UnusableError(f"{path}: not a readable zip file ({error})") from None
            found = self.zip.namelist()
        self.names = set(found)
        self.twice = sorted({name for name in found if found.count(name) > 1}) if len(found) > len(self.names) else []

    def parts(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes in parts."""
        if not _NAME.fullmatch(name) or name not in self.names:
            raise DiffersError(f"{name[:200]!r}: missing")
        try:
            with self._open(name) as file:
                while part := file.read(1 << 20):
                    yield part
        except _DAMAGED as error:
            raise DiffersError(f"{name}: damaged ({error})") from None

    def _open(self, name: str) -> IO[bytes]:
        return self.zip.open(name) if self.zip else (self.folder / name).open("rb")

    def digest(self, name: str) -> tuple[int, str]:
        """Return size and sha256 of a member."""
        digest, size = hashlib.sha256(), 0
        for part in self.parts(name):
            digest.update(part)
            size += len(part)
        return size, digest.hexdigest()

    def read(self, name: str) -> bytes:
        data = bytearray()
        for part in self.parts(name):
            data += part
            if len(data) > _LARGEST:
                raise DiffersError(f"{name}: over {_LARGEST} bytes")
        return bytes(data)

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def below(self, folder: str) -> list[str]:
        return sorted(name for name in self.names if name.startswith(folder))


class Keys:
    """The public keys in the evidence, and what the ledger's entries say of each."""

    def __init__(self) -> None:
        self.pems: dict[str, str] = {}
        self.changes: dict[str, list[tuple[int, str]]] = {}
        """Of each key, after which entry it became valid, retired or revoked."""
        self.first = ""

    def add(self, pem: str) -> str:
        """Note a key; return its id, the sha256 of its DER SubjectPublicKeyInfo."""
        keyid, same = _identified(pem)
        if same != pem:
            raise DiffersError(f"the PEM of key {keyid} is not in the usual form")
        self.pems.setdefault(keyid, pem)
        return keyid

    def state(self, keyid: str, place: int | None = None) -> str:
        """Return what a key is for the entry `place`; None: after all of them."""
        before = [state for after, state in self.changes.get(keyid, []) if place is None or after < place]
        return before[-1] if before else "unknown"

    def trusted(self, keyid: str) -> bool:
        return self.state(keyid) in ("valid", "retired")

    def verify(self, keyid: str, data: bytes, signature: bytes) -> bool:
        return keyid in self.pems and _verify(self.pems[keyid], data, signature)


@dataclass
class Evidence:
    """What was read and found to hold so far; each check builds on those before it."""

    files: Files
    keys: Keys = field(default_factory=Keys)
    entries: dict[int, dict[str, Any]] = field(default_factory=dict)
    leaves: dict[int, bytes] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    head: tuple[str, int, bytes, str] = ("", 0, b"", "")
    """Of the checkpoint: origin, size, root, id of the key that signed it."""
    listed: dict[str, tuple[int, str]] = field(default_factory=dict)
    maker: tuple[str, str] | None = None
    """Id and PEM of the key of whoever made the file, if the ledger does not know it."""


def check_files(evidence: Evidence) -> Iterator[str]:
    """The members are exactly those of files.json, each with its bytes."""
    files, data = evidence.files, evidence.files.read(LIST)
    value = json.loads(data)
    if canonical(value) != data:
        yield f"{LIST}: not in canonical form"
    listed = {file["path"]: (file["size"], file["sha256"]) for file in value["files"]}
    evidence.listed = listed
    for name in files.twice:
        yield f"{name}: there more than once"
    for name in sorted((files.names - {LIST, LIST_SIGNATURE}) ^ listed.keys()):
        yield f"{name[:200]!r}: " + ("not in the list" if name in files.names else "missing")
    for name in sorted(listed.keys() & files.names):
        try:
            size, digest = files.digest(name)
        except DiffersError as error:
            yield str(error)
            continue
        if (size, digest) != listed[name]:
            yield f"{name}: sha256 {digest}, expected {listed[name][1]}"


def check_ledger(evidence: Evidence) -> Iterator[str]:
    """Each entry is signed by a key that the ledger trusted at its place; the first brings the first key."""
    files, keys = evidence.files, evidence.keys
    for name in files.below("ledger/entries/"):
        data = files.read(name)
        entry = json.loads(data)
        place = entry["sequence"]
        if name != f"ledger/entries/{place:08d}.json":
            yield f"{name}: says that it is entry {place}"
            continue
        change = _key_change(entry, keys) if entry["event"] == "key" else None
        if place == 1:
            if change != ("trust", entry["key"]):
                yield f"{name}: does not bring the key that signs it"
                continue
            keys.first, keys.changes[entry["key"]] = entry["key"], [(0, "valid")]
        if (state := keys.state(entry["key"], place)) != "valid":
            yield f"{name}: signed by key {entry['key']}, which is {state} there"
        if not keys.verify(entry["key"], _pae(ENTRY_TYPE, _unsigned(data)), _base64(entry["signature"])):
            yield f"{name}: its signature is not one of key {entry['key']}"
        if change and place > 1:
            becomes = {"trust": "valid", "retire": "retired", "revoke": "revoked"}[change[0]]
            keys.changes.setdefault(change[1], []).append((place, becomes))
        before = evidence.leaves.get(place - 1)
        if before is not None and entry["previous"] != hashlib.sha256(before).hexdigest():
            yield f"{name}: does not carry the sha256 of the entry before"
        evidence.entries[place], evidence.leaves[place] = entry, data
    if 1 not in evidence.entries:
        yield "the first entry, which brings the first key, is missing"


def check_maker(evidence: Evidence) -> Iterator[str]:
    """Whoever made the file has a key that the ledger trusts or never knew: none that it trusts no more."""
    if MAKER not in evidence.files.names:
        return
    keyid, pem = _identified(evidence.files.read(MAKER).decode())
    if (state := evidence.keys.state(keyid)) != "unknown":
        yield f"{MAKER}: key {keyid}, which the ledger knows, and which is {state}"
    else:
        evidence.maker = keyid, pem


def check_checkpoint(evidence: Evidence) -> Iterator[str]:
    """The checkpoint is of this ledger and signed by a key that the ledger trusted then, or by the file's maker."""
    origin, size, root, key_hash, signature, text = _note(evidence.files.read(CHECKPOINT).decode())
    if 1 not in evidence.leaves or origin != ORIGIN + hashlib.sha256(evidence.leaves[1]).hexdigest():
        yield f"{CHECKPOINT}: of another ledger, {origin}"
    valid = _note_keys(evidence, size, text, key_hash, signature)
    if not valid and evidence.maker and _verify(evidence.maker[1], text.encode(), signature):
        valid = [evidence.maker[0]] if bytes.fromhex(evidence.maker[0])[:4] == key_hash else []
    if not valid:
        yield f"{CHECKPOINT}: signed by none of the keys that the ledger trusted then"
    evidence.head = (origin, size, root, valid[0] if valid else "")


def check_proofs(evidence: Evidence) -> Iterator[str]:
    """Each entry is a leaf below the checkpoint's root."""
    _, size, root, _ = evidence.head
    value = evidence.files.json(PROOFS)
    paths = {proof["index"]: [bytes.fromhex(step) for step in proof["path"]] for proof in value["proofs"]}
    for place in sorted({index + 1 for index in paths} ^ evidence.entries.keys()):
        yield f"ledger entry {place}: " + ("no proof" if place in evidence.entries else "a proof without the entry")
    for place, data in sorted(evidence.leaves.items()):
        if place - 1 in paths and not _included(data, place - 1, size, paths[place - 1], root):
            yield f"ledger entry {place}: not below the checkpoint's root"


def check_list_signature(evidence: Evidence) -> Iterator[str]:
    """files.json is signed by a key that the ledger trusts, or by the file's maker."""
    payload, data = evidence.files.read(LIST), evidence.files.read(LIST_SIGNATURE)
    yield from _signed(evidence, LIST_SIGNATURE, data, payload, LIST_TYPE, evidence.maker)


def check_keys(evidence: Evidence) -> Iterator[str]:
    """Each file in keys/ is named by its key and known to the ledger."""
    for name in evidence.files.below("keys/"):
        keyid, pem = _identified(evidence.files.read(name).decode())
        if name != f"keys/{keyid}.pem" or evidence.keys.pems.get(keyid) != pem:
            yield f"{name}: not a key that the ledger names"


def check_manifest(evidence: Evidence) -> Iterator[str]:
    """The manifest is what the ledger says was released, and agrees with itself."""
    data = evidence.files.read(MANIFEST)
    manifest = evidence.manifest = json.loads(data)
    digest = hashlib.sha256(data).hexdigest()
    what = (manifest["task"], manifest["version"])
    released = [e for e in evidence.entries.values() if e["event"] == "release" and (e["task"], e["version"]) == what]
    if [entry["digest"] for entry in released] != [digest]:
        yield f"{MANIFEST}: sha256 {digest}, and no entry of the ledger released it as {what[0]}@{what[1]}"
    content = [f for f in manifest["files"] if not f["path"].startswith("records/") and f["path"] != "model.sig"]
    if _digest_of(content) != manifest["content"]:
        yield f"{MANIFEST}: its files do not give the content digest {manifest['content']}"
    of = {file["path"]: file["sha256"] for file in manifest["files"]}
    for name, record in manifest["records"].items():
        if of.get(f"records/{name}.json") != record:
            yield f"{MANIFEST}: its record {name} is another than its file"


def check_release_files(evidence: Evidence) -> Iterator[str]:
    """Each file in release/ is one that the manifest lists, with those bytes."""
    of = {f"release/{file['path']}": (file["size"], file["sha256"]) for file in evidence.manifest["files"]}
    for name in evidence.files.below("release/"):
        if name != MANIFEST and evidence.files.digest(name) != of.get(name):
            yield f"{name}: not as the manifest lists it"


def check_records(evidence: Evidence) -> Iterator[str]:
    """Each record is named by its sha256 and is a SLSA provenance statement whose files give its digest."""
    for name in evidence.files.below("records/"):
        data = evidence.files.read(name)
        digest = hashlib.sha256(data).hexdigest()
        if name != f"records/{digest}.json":
            yield f"{name}: its sha256 is {digest}"
            continue
        statement = json.loads(data)
        if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
            yield f"{name}: not SLSA provenance"
        if _digest_of(_byproduct(statement, "files")["files"]) != _content(statement):
            yield f"{name}: its list of files does not give the digest of its output"
        evidence.records[digest] = statement


def check_signatures(evidence: Evidence) -> Iterator[str]:
    """Each record has an envelope by a key that the ledger trusts; each envelope is one of a record's."""
    signed = set()
    for name in evidence.files.below("signatures/"):
        digest = name.split("/")[1]
        if digest not in evidence.records:
            yield f"{name}: of no record here"
            continue
        record = evidence.files.read(f"records/{digest}.json")
        problems = list(_signed(evidence, name, evidence.files.read(name), record, STATEMENT_TYPE))
        yield from problems
        if not problems:
            signed.add(digest)
    for digest in sorted(evidence.records.keys() - signed):
        yield f"records/{digest}.json: no good signature"


def check_chain(evidence: Evidence) -> Iterator[str]:
    """From the manifest's records each link leads to a record with that output, down to raw data."""
    roots = list(evidence.manifest["records"].values())
    reached, waiting, raw = set(), list(roots), 0
    while waiting:
        digest = waiting.pop()
        if digest in reached:
            continue
        reached.add(digest)
        if digest not in evidence.records:
            yield f"records/{digest}.json: missing, and another names it"
            continue
        for given in _definition(evidence.records[digest])["resolvedDependencies"]:
            notes = given.get("annotations", {})
            before = notes.get("record")
            if before is not None:
                waiting.append(before)
                if before in evidence.records and _content(evidence.records[before]) != given["digest"]["sha256"]:
                    yield f"records/{digest}.json: names another {given['name']} than record {before} made"
            elif given["name"] == "raw":
                raw += 1
                if "files" in notes and given["digest"]["sha256"] not in _digests_of(notes["files"]):
                    yield f"records/{digest}.json: its list of raw files does not give their digest"
    if not raw:
        yield "the chain does not reach raw data"
    for digest in sorted(evidence.records.keys() - reached):
        yield f"records/{digest}.json: no part of the release's chain"


def check_model_signature(evidence: Evidence) -> Iterator[str]:
    """model.sig (OpenSSF Model Signing) signs the digests that the manifest lists."""
    if MODEL_SIGNATURE not in evidence.files.names:
        yield f"{MODEL_SIGNATURE}: missing"
        return
    envelope = evidence.files.json(MODEL_SIGNATURE)["dsseEnvelope"]
    payload = _base64(envelope["payload"])
    yield from _signed(evidence, MODEL_SIGNATURE, canonical(envelope), payload, STATEMENT_TYPE)
    resources = json.loads(payload)["predicate"]["resources"]
    signed = {one["name"]: one["digest"] for one in resources if one["algorithm"] == "sha256"}
    if signed != {f["path"]: f["sha256"] for f in evidence.manifest["files"] if f["path"] != "model.sig"}:
        yield f"{MODEL_SIGNATURE}: signs other files than the manifest lists"


def check_extras(evidence: Evidence) -> Iterator[str]:
    """Locks and receipts are those that records and ledger name; the SLSA export holds these very envelopes."""
    named = {str(d["digest"].get("sha256")) for s in evidence.records.values() for d in _dependencies(s)}
    for name in evidence.files.below("locks/"):
        digest = evidence.files.digest(name)[1]
        if name != f"locks/{digest}.txt" or digest not in named:
            yield f"{name}: not a lock that a record names"
    erased = {entry["digest"] for entry in evidence.entries.values() if entry["event"] == "erase"}
    for name in evidence.files.below("erasures/"):
        if evidence.files.digest(name)[1] not in erased:
            yield f"{name}: not a receipt that the ledger names"
    envelopes = {evidence.files.read(name) for name in evidence.files.below("signatures/")}
    for name in evidence.files.below("exports/"):
        if name.endswith(".intoto.jsonl") and not set(evidence.files.read(name).splitlines()) <= envelopes:
            yield f"{name}: an envelope that is not in signatures/"


CHECKS: list[tuple[str, Callable[[Evidence], Iterator[str]], Callable[[Evidence], int]]] = [
    ("files against the list", check_files, lambda e: len(e.listed)),
    ("ledger entries: signature, key, order", check_ledger, lambda e: len(e.entries)),
    ("who made the file", check_maker, lambda e: 1),
    ("checkpoint of the ledger", check_checkpoint, lambda e: 1),
    ("entries below the checkpoint's root", check_proofs, lambda e: len(e.entries)),
    ("signature of the list", check_list_signature, lambda e: 1),
    ("public keys", check_keys, lambda e: len(e.keys.pems)),
    ("manifest against the ledger", check_manifest, lambda e: 1),
    ("release's files against the manifest", check_release_files, lambda e: len(e.files.below("release/")) - 1),
    ("records against their names", check_records, lambda e: len(e.records)),
    ("records' signatures", check_signatures, lambda e: len(e.files.below("signatures/"))),
    ("chain from the release to raw data", check_chain, lambda e: len(e.records)),
    ("model signature", check_model_signature, lambda e: 1),
    ("locks, receipts, exports", check_extras, lambda e: len(e.files.below("locks/") + e.files.below("exports/"))),
]


def verify(
    path: Path, known: Sequence[str] = (), release: Path | None = None, checkpoint: str | None = None
) -> tuple[list[Check], Evidence]:
    """Return the lines of the table, and what was read.

    Raises:
        UnusableError: there is nothing to check.
    """
    evidence = Evidence(Files(path))
    if LIST not in evidence.files.names:
        raise UnusableError(f"{path}: no evidence of a release ({LIST} is missing)")
    done = [_run(name, evidence, check, count) for name, check, count in CHECKS]
    done.append(_run("the key that you know", evidence, lambda e: _pinned(e, known), lambda e: len(known)))
    if evidence.maker:
        who = next(check for check in done if check.name == "who made the file")
        who.note = f"key {evidence.maker[0]}, which the ledger does not know"
    if not known:
        done[-1].note = "not given: compare the fingerprints below with those that you were told"
    if checkpoint is not None:
        done.append(_run("the checkpoint that you kept", evidence, lambda e: _kept(e, checkpoint), lambda e: 1))
    if release is not None:
        done.append(
            _run("your copy of the release", evidence, lambda e: _copy(e, release), lambda e: len(e.manifest["files"]))
        )
    return done, evidence


def _run(
    name: str, evidence: Evidence, check: Callable[[Evidence], Iterator[str]], count: Callable[[Evidence], int]
) -> Check:
    found = Check(name)
    try:
        found.problems += check(evidence)
        found.count = count(evidence)
    except DiffersError as error:
        found.problems.append(str(error))
    except _MALFORMED as error:
        found.problems.append(f"malformed ({type(error).__name__}: {str(error)[:200]})")
    return found


def _pinned(evidence: Evidence, given: Sequence[str]) -> Iterator[str]:
    known = {evidence.keys.first, evidence.head[3]} - {""}
    for key in sorted(set(given) - known):
        did = ", ".join(sorted(known)) or "no key"
        yield f"{key} neither began the ledger nor signed the checkpoint; {did} did"
    if given and evidence.maker and evidence.maker[0] not in given:
        maker = f"key {evidence.maker[0]} made this file, and the ledger does not know it"
        yield f"{maker}: find out whose it is, and give it too"


def _kept(evidence: Evidence, given: str) -> Iterator[str]:
    """The ledger only grew since a checkpoint, which is given as a note or as its one line."""
    words = given.strip().split(" ")
    if len(words) == 4:
        given = "{0}\n{1}\n{2}\n\n\N{EM DASH} {0} {3}\n".format(*words)
    origin, size, root, key_hash, signature, text = _note(given.strip() + "\n")
    now, length, head, _ = evidence.head
    if origin != now:
        yield f"it is of another ledger, {origin}"
    elif size > length:
        yield f"it saw {size} entries, and the ledger here has {length}"
    elif not _note_keys(evidence, size, text, key_hash, signature):
        yield "it is signed by none of the keys that the ledger trusted then"
    else:
        proofs = evidence.files.json("ledger/consistency.json") if size < length else {str(size): []}
        if str(size) not in proofs:
            yield f"no proof from {size} entries is in this file: ask for one made with --checkpoint"
        elif not _grew(size, length, root, head, [bytes.fromhex(step) for step in proofs[str(size)]]):
            yield f"the first {size} entries are not what they were"


def _copy(evidence: Evidence, folder: Path) -> Iterator[str]:
    """Compare a folder with the manifest."""
    for file in evidence.manifest["files"]:
        path = folder / file["path"]
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            yield f"{file['path']}: missing"
            continue
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != file["sha256"]:
            yield f"{file['path']}: sha256 {digest}, expected {file['sha256']}"


def _signed(
    evidence: Evidence, name: str, data: bytes, payload: bytes, kind: str, maker: tuple[str, str] | None = None
) -> Iterator[str]:
    """Yield what is wrong with a DSSE envelope that must sign `payload`; `maker` may have signed it."""
    value = json.loads(data)
    if canonical(value) != data or value.keys() != {"payload", "payloadType", "signatures"}:
        yield f"{name}: not an envelope in canonical form"
    elif (_base64(value["payload"]), value["payloadType"]) != (payload, kind):
        yield f"{name}: signs something else"
    else:
        said = _pae(kind, payload)
        pairs = [(one["keyid"], _base64(one["sig"])) for one in value["signatures"]]
        for keyid, signature in pairs or [("", b"")]:
            if maker and maker[0] == keyid and _verify(maker[1], said, signature):
                continue
            if not evidence.keys.verify(keyid, said, signature):
                yield f"{name}: not signed by a key that the ledger names ({keyid[:64] or 'no signature'})"
            elif not evidence.keys.trusted(keyid):
                yield f"{name}: signed by key {keyid}, which is {evidence.keys.state(keyid)}"


def _key_change(entry: dict[str, Any], keys: Keys) -> tuple[str, str]:
    """Return what a key event does, and to which key."""
    keyid = keys.add(entry["detail"]["public_key"])
    if keyid != entry["digest"]:
        raise DiffersError(f"ledger entry {entry['sequence']}: names key {entry['digest']} and holds {keyid}")
    return entry["detail"]["action"], keyid


def _unsigned(data: bytes) -> bytes:
    """Return an entry's bytes without its field `signature`: in canonical form only `task` and `version` follow it."""
    start = data.rindex(b',"signature":"')
    return data[:start] + data[data.index(b'"', start + len(b',"signature":"')) + 1 :]


def _note(text: str) -> tuple[str, int, bytes, bytes, bytes, str]:
    """Return origin, size, root, key hash, signature and signed text of a C2SP signed note with one signature."""
    body, _, line = text.partition("\n\n")
    origin, size, root = body.split("\n")
    dash, name, signature = line.removesuffix("\n").split(" ")
    raw = _base64(signature)
    if dash != "\N{EM DASH}" or name != origin or str(int(size)) != size or not line.endswith("\n"):
        raise ValueError("not a checkpoint")
    return origin, int(size), _base64(root), raw[:4], raw[4:], body + "\n"


def _note_keys(evidence: Evidence, size: int, text: str, key_hash: bytes, signature: bytes) -> list[str]:
    """Return the keys that signed a checkpoint and that the ledger trusted for the entry after it."""
    keys = evidence.keys
    named = [k for k in keys.pems if bytes.fromhex(k)[:4] == key_hash and keys.state(k, size + 1) == "valid"]
    return [keyid for keyid in named if keys.verify(keyid, text.encode(), signature)]


def _included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Return whether the path leads from a leaf to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, hashlib.sha256(b"\0" + leaf).digest()
    for sibling in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = _node(sibling, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = _node(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def _grew(first: int, second: int, old_root: bytes, new_root: bytes, path: list[bytes]) -> bool:
    """Return whether a tree of `first` leaves is the start of one of `second` (RFC 9162, 2.1.4.2)."""
    if first == second:
        return not path and old_root == new_root
    path = [old_root, *path] if first & (first - 1) == 0 else path
    if not 0 < first < second or not path:
        return False
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = _node(sibling, old), _node(sibling, new)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new = _node(new, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def canonical(value: Any) -> bytes:
    """Return RFC 8785 JSON of a value without fractions, whose keys are ASCII: all that is compared here is so."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest_of(files: list[dict[str, Any]]) -> str:
    """Return the digest of a folder: sha256 over its sorted list of path, size and sha256."""
    rows = [{"path": file["path"], "size": file["size"], "sha256": file["sha256"]} for file in files]
    return hashlib.sha256(canonical(sorted(rows, key=lambda row: (row["path"], row["size"])))).hexdigest()


def _digests_of(files: list[dict[str, Any]]) -> set[str]:
    """Return the digests that raw data may have: of its folder, or of its one file."""
    return {_digest_of(files), *(file["sha256"] for file in files if len(files) == 1)}


def _definition(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement["predicate"]["buildDefinition"]
    return found


def _dependencies(statement: dict[str, Any]) -> list[dict[str, Any]]:
    return list(_definition(statement)["resolvedDependencies"])


def _content(statement: dict[str, Any]) -> str:
    (subject,) = statement["subject"]
    return str(subject["digest"]["sha256"])


def _byproduct(statement: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        one["annotations"] for one in statement["predicate"]["runDetails"]["byproducts"] if one["name"] == name
    )
    return found


def _base64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 in another form than the usual one")
    return data


def _pae(kind: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding of DSSE: what a signature is over."""
    return b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _identified(pem: str) -> tuple[str, str]:
    """Return the id of a P-256 public key, and its PEM in the usual form."""
    key, form = _loaded(pem), PublicFormat.SubjectPublicKeyInfo
    keyid = hashlib.sha256(key.public_bytes(Encoding.DER, form)).hexdigest()
    return keyid, key.public_bytes(Encoding.PEM, form).decode()


@cache
def _loaded(pem: str) -> Any:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("not a P-256 public key")
    return key


def _verify(pem: str, data: bytes, signature: bytes) -> bool:
    try:
        _loaded(pem).verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _plain(text: str) -> str:
    """Return text of others for a terminal: what does not print is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _print(checks: list[Check], evidence: Evidence, known: Sequence[str]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        verdict = "DIFFERS" if check.problems else "ok" if check.count or not check.note else "-"
        said = check.problems[0] if check.problems else check.note or str(check.count)
        print(f"{check.name:{width}}  {verdict:7}  {_plain(said)}")
        for problem in check.problems[1:20]:
            print(f"{'':{width}}  {'':7}  {_plain(problem)}")
        if len(check.problems) > 20:
            print(f"{'':{width}}  {'':7}  and {len(check.problems) - 20} more")
    print(f"\nthe ledger began with key  {evidence.keys.first or 'unknown'}")
    by = evidence.head[3] or "unknown"
    print(f"the checkpoint is by key   {by}{', which the ledger does not know' if evidence.maker else ''}")
    if any(check.problems for check in checks):
        print("\nVERDICT: the evidence does not hold.")
        return
    what = f"{evidence.manifest['task']}@{evidence.manifest['version']}"
    print(
        f"\nVERDICT: the evidence of {_plain(what)} holds"
        + (", by the key that you know." if known else " together. Whose it is depends on the two keys above.")
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("evidence", nargs="?", type=Path, help="the zip file, or the folder into which it was unpacked")
    parser.add_argument(
        "--key",
        metavar="FINGERPRINT",
        action="append",
        default=[],
        help="sha256 of a public key that you know from elsewhere; repeatable",
    )
    parser.add_argument("--release", type=Path, metavar="FOLDER", help="the release's files, to compare as well")
    parser.add_argument("--checkpoint", metavar="TEXT|FILE", help="a checkpoint of the ledger that you kept")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    given = parser.parse_args(arguments)
    known = [key.lower().replace(":", "") for key in given.key]
    try:
        if wrong := [key for key in known if not _SHA256.fullmatch(key)]:
            raise UnusableError(f"--key {wrong[0]}: expected 64 hex digits")
        kept = given.checkpoint
        if kept and not kept.startswith(ORIGIN):
            kept = Path(kept).read_text(encoding="utf-8", errors="replace")
        path = given.evidence or Path(__file__).resolve().parent
        checks, evidence = verify(path, known, given.release, kept)
    except (UnusableError, OSError) as error:
        print(_plain(str(error)), file=sys.stderr)
        return 2
    holds = not any(check.problems for check in checks)
    if given.json:
        rows = [{"check": c.name, "count": c.count, "problems": c.problems, "note": c.note} for c in checks]
        maker = evidence.maker[0] if evidence.maker else None
        keys = {"first": evidence.keys.first, "checkpoint": evidence.head[3], "maker": maker}
        print(json.dumps({"holds": holds, "keys": keys, "checks": rows}, indent=1))
    else:
        _print(checks, evidence, known)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
