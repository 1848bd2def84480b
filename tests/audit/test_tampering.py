"""Every stored object, changed in every way that somebody with the store's password could: verify finds each change,
names the object, and raises no false alarm where nothing was changed.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from memory import MemoryStore
from published import Publisher, fill, new_signer, rotate

from graftline.audit.verify.inventory import KINDS
from graftline.audit.verify.verifying import Finding, Options, Verdict, verify
from graftline.canonical import canonical_json
from graftline.digests import FileDigest, sha256_bytes
from graftline.ledger.chain import Chain
from graftline.ledger.checkpoint import TreeHead
from graftline.ledger.entries import Entry, Fact
from graftline.ledger.trust import key_fact
from graftline.releases.promotion import rollback
from graftline.releases.provenance import Provenance, keep
from graftline.releases.publishing import Publication, publish
from graftline.signing.envelope import STATEMENT_TYPE, Envelope, open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import PublicKey, Signer
from graftline.signing.model import sign_model
from graftline.store import Store
from graftline.store.opening import open_store

Content = dict[str, bytes]
LAST = "ledger/{:08d}.json"


@dataclass(frozen=True)
class World:
    """An untouched store, a checkpoint of it, and a key that nobody trusts."""

    store: MemoryStore
    checkpoint: TreeHead
    forger: Signer
    folder: Path

    @property
    def content(self) -> Content:
        return self.store.content


@dataclass(frozen=True)
class Case:
    """One change, and the keys that verify must name."""

    name: str
    places: tuple[str, ...]
    change: Callable[[Content], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_KEYS", str(folder / "keys"))
        patch.setenv("GRAFTLINE_CACHE", str(folder / "cache"))
        store = MemoryStore("memory", {})
        checkpoint = fill(store, folder / "work")
        yield World(store, checkpoint, new_signer(folder), folder)


def look(store: Store, *checkpoints: TreeHead, **options: Any) -> Verdict:
    kept = {f"checkpoint {number}": given for number, given in enumerate(checkpoints)}
    return verify(store, None, Options(kept, readers=1, keep_state=False, **options))


def faults(verdict: Verdict) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.kind != "erased"]


def test_every_change_of_every_object_is_found_and_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a change left as it was would be verified some 900 times.
    monkeypatch.setattr(PublicKey, "verify", cache(PublicKey.verify))
    cases = [*damage(world), *fields(world), *swaps(world), *forgeries(world)]
    assert len(cases) >= 500
    assert len({case.name for case in cases}) == len(cases)
    missed = [f"{case.name}: {found}" for case in cases if (found := outcome(world, case))]
    assert not missed, f"{len(missed)} of {len(cases)} not found:\n" + "\n".join(missed)


def outcome(world: World, case: Case) -> str:
    """Return how verify failed to find a change; an empty string if it found it."""
    content = dict(world.content)
    case.change(content)
    assert content != world.content, case.name
    verdict = look(MemoryStore(world.store.url, content), world.checkpoint)
    places = {finding.place for finding in verdict.findings if finding.kind != "erased"}
    unnamed = [place for place in case.places if place not in places]
    return "" if not verdict.whole and not unnamed else f"names {sorted(places) or 'nothing'}, not {unnamed}"


# Bytes changed, one object after another


def damage(world: World) -> Iterator[Case]:
    for key, data in world.content.items():
        if not key.startswith("runs/"):  # a note without a signature: only its form can be checked
            for where, at in (("start", 0), ("middle", len(data) // 2), ("end", len(data) - 1)):
                yield Case(f"flip {where} of {key}", (key,), set_to(key, flipped(data, at)))
            yield Case(f"delete {key}", named_without(key), lambda content, key=key: content.pop(key))
        for what, changed in (("truncate", data[: len(data) // 2]), ("empty", b""), ("extend", data + b" ")):
            yield Case(f"{what} {key}", (key,), set_to(key, changed))


def set_to(key: str, data: bytes) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content[key] = data

    return change


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def named_without(key: str) -> tuple[str, ...]:
    """Return what must be named if an object is gone: a record that is unsigned now, or the object."""
    return (f"records/{key.split('/')[1]}.json",) if key.startswith("signatures/") else (key,)


def kind_of(key: str) -> str:
    """Return what an object is, such that two of the same can be mistaken for each other."""
    kind = next(name for name, pattern in KINDS.items() if pattern.fullmatch(key))
    return f"{kind} {key.rpartition('/')[2]}" if kind in ("release", "rows") else kind


def swaps(world: World) -> Iterator[Case]:
    """Each object with the next of its kind."""
    by_kind: dict[str, list[str]] = {}
    for key in world.content:
        by_kind.setdefault(kind_of(key), []).append(key)
    for keys in by_kind.values():
        for one, two in pairwise(keys):
            first, second = world.content[one], world.content[two]
            if first != second:

                def swap(content: Content, one: str = one, two: str = two) -> None:
                    content[one], content[two] = content[two], content[one]

                yield Case(f"swap {one} and {two}", (one, two), swap)


# One field of a JSON object changed, and the object in canonical form again


def fields(world: World) -> Iterator[Case]:
    seen: dict[str, int] = {}
    for key, data in world.content.items():
        kind = "entry " + json.loads(data)["event"] if key.startswith("ledger/") else kind_of(key)
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] > 1 or key.startswith("runs/") or not data.startswith((b"{", b"[")):
            continue
        for path in sorted(path for path in leaves(json.loads(data)) if path)[:24]:
            changed = canonical_json(with_leaf(json.loads(data), path))
            yield Case(f"field {path} of {key}", (key,), set_to(key, changed))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, nested in pairs:
            yield from leaves(nested, (*path, str(name)))
    else:
        yield path


def with_leaf(value: Any, path: tuple[str, ...]) -> Any:
    parent = value
    for name in path[:-1]:
        parent = parent[name if isinstance(parent, dict) else int(name)]
    last: Any = path[-1] if isinstance(parent, dict) else int(path[-1])
    parent[last] = other(parent[last])
    return value


def other(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return (value[:-1] + ("1" if value[-1] == "0" else "0")) if value else "x"
    return {"x": 1} if isinstance(value, dict) else "x"


# What somebody does who knows how it all hangs together


def forgeries(world: World) -> Iterator[Case]:
    yield from replays(world)
    yield from rewritten_ledgers(world)
    yield from forged_releases(world)
    yield from forged_signatures(world)
    yield from planted(world)


def entries_of(content: Content) -> list[Entry]:
    return [Entry(**json.loads(content[key])) for key in sorted(content) if key.startswith("ledger/")]


def replays(world: World) -> Iterator[Case]:
    """An older alias, and a ledger whose end was cut off, with and without what followed from it."""
    entries = entries_of(world.content)
    for entry in entries[:-1]:
        if entry.alias and (entry.task, entry.alias) == ("digits", "champion"):
            alias = canonical_json({"version": entry.version, "entry": entry.sequence})
            key = "aliases/digits/champion.json"
            yield Case(f"alias of entry {entry.sequence}", (key,), set_to(key, alias))
    for kept in range(len(entries)):
        yield Case(
            f"cut off after {kept}", (LAST.format(kept + 1),), lambda c, kept=kept: cut_off(c, kept, whole=False)
        )
        yield Case(f"as after {kept}", (LAST.format(kept + 1),), lambda c, kept=kept: cut_off(c, kept, whole=True))


def cut_off(content: Content, kept: int, *, whole: bool) -> None:
    """Remove the ledger's end; if `whole`, all that tells of it, too."""
    entries = entries_of(content)
    for entry in entries[kept:]:
        del content[LAST.format(entry.sequence)]
        if whole and entry.event == "release":
            for key in [key for key in content if key.startswith(f"releases/{entry.task}/{entry.version}/")]:
                del content[key]
    if whole:
        for key in [key for key in content if key.startswith("aliases/")]:
            del content[key]
        for entry in entries[:kept]:
            if entry.alias:
                alias = {"version": entry.version, "entry": entry.sequence}
                content[f"aliases/{entry.task}/{entry.alias}.json"] = canonical_json(alias)


def rewritten_ledgers(world: World) -> Iterator[Case]:
    """The ledger made anew, or from some place on, chained as it must be, by a key that is not trusted."""
    count = len(entries_of(world.content))
    for start in range(1, count + 1):
        place = (LAST.format(start),)
        yield Case(f"signed anew from {start}", place, lambda c, start=start: rewrite(c, start, world.forger))
        yield Case(f"re-chained from {start}", place, lambda c, start=start: rewrite(c, start, None))
    for start in range(1, count):
        places = (LAST.format(start), LAST.format(start + 1))
        yield Case(f"reordered {start}", places[:1], lambda c, start=start: reorder(c, start))

    def anew(content: Content) -> None:
        """Everything by the forger's own key: the first entry brings it."""
        facts = [key_fact("trust", world.forger.public, "k")]
        facts += [fact_of(entry) for entry in entries_of(content) if entry.event != "key"]
        put_ledger(content, facts, world.forger)
        sign_all(content, world.forger)

    yield Case("a ledger of the forger's own", (LAST.format(1),), anew)

    def forged_event(fact: Callable[[], Fact]) -> Callable[[Content], None]:
        def change(content: Content) -> None:
            append(content, fact(), world.forger)

        return change

    last = (LAST.format(count + 1),)
    wanted = {
        "release": Fact("release", "digits", 9, "0" * 64, "x"),
        "promotion": Fact("promote", "digits", 2, "0" * 64, "x", "champion"),
        "rollback": Fact("rollback", "digits", 2, "0" * 64, "x", "champion"),
        "key": key_fact("trust", world.forger.public, "x"),
        "erasure": Fact("erase", "digits", 0, "0" * 64, "x"),
    }
    for name, fact in wanted.items():
        yield Case(f"a forged {name}", last, forged_event(lambda fact=fact: fact))


def fact_of(entry: Entry) -> Fact:
    names = ("event", "task", "version", "digest", "id", "alias", "detail")
    return Fact(**{name: value for name, value in asdict(entry).items() if name in names})


def sealed(chain: Chain, fact: Fact, signer: Signer | None, like: Entry | None = None) -> Entry:
    """Return the next entry; without a signer it keeps the key and the signature of `like`."""
    entry = Entry(
        sequence=len(chain.entries) + 1,
        previous=chain.previous,
        root=chain.tree.root().hex(),
        at="2026-01-01T00:00:00Z",
        actor="x",
        key=signer.keyid if signer else like.key if like else "",
        signature=like.signature if like else "",
        **asdict(fact),
    )
    if signer is None:
        return entry
    return replace(entry, signature=base64.b64encode(signer.sign(entry.signed)).decode())


def put_ledger(content: Content, facts: list[Fact], signer: Signer) -> None:
    for key in [key for key in content if key.startswith("ledger/")]:
        del content[key]
    for fact in facts:
        append(content, fact, signer)


def chain_of(entries: list[Entry]) -> Chain:
    """Return the chain of entries that may be forged: hashes only."""
    chain = Chain("x")
    for entry in entries:
        chain.entries.append(entry)
        chain.tree.append(leaf(entry.data))
        chain._previous = sha256_bytes(entry.data)
    return chain


def leaf(data: bytes) -> bytes:
    from graftline.ledger.merkle import leaf_hash

    return leaf_hash(data)


def append(content: Content, fact: Fact, signer: Signer | None, like: Entry | None = None) -> None:
    entry = sealed(chain_of(entries_of(content)), fact, signer, like)
    content[LAST.format(entry.sequence)] = entry.data


def rewrite(content: Content, start: int, signer: Signer | None) -> None:
    entries = entries_of(content)
    for entry in entries[start - 1 :]:
        del content[LAST.format(entry.sequence)]
    for entry in entries[start - 1 :]:
        fact = replace(fact_of(entry), id=entry.id + "'")
        append(content, fact, signer, entry)


def reorder(content: Content, start: int) -> None:
    entries = entries_of(content)
    later = entries[start - 1 :]
    later[0], later[1] = later[1], later[0]
    for entry in later:
        del content[LAST.format(entry.sequence)]
    for entry in later:
        append(content, fact_of(entry), None, entry)


def sign_all(content: Content, signer: Signer) -> None:
    """Replace every signature of a record by the signer's own."""
    for key in [key for key in content if key.startswith("signatures/")]:
        envelope = open_envelope(content.pop(key))
        content[f"signatures/{key.split('/')[1]}/{signer.keyid}.json"] = seal(
            envelope.payload, envelope.payload_type, signer
        )
    for key in [key for key in content if key.startswith("keys/")]:
        del content[key]
    content[f"keys/{signer.keyid}.pem"] = signer.public.pem.encode()


def forged_releases(world: World) -> Iterator[Case]:
    """Other weights, with a manifest that fits them, signed by the forger; a release that was never published."""
    for task, version in (("digits", 1), ("digits", 2), ("letters", 1)):
        folder = f"releases/{task}/{version}"

        def other_weights(content: Content, task: str = task, version: int = version, with_entry: bool = False) -> None:
            folder = f"releases/{task}/{version}"
            manifest = json.loads(content[f"{folder}/manifest.json"])
            content[f"{folder}/model.safetensors"] = b"other weights"
            files = [FileDigest(**file) for file in manifest["files"] if file["path"] != "model.sig"]
            files = [changed(file, b"other weights") for file in files]
            signature = sign_model(f"{task}@{version}", files, world.forger)
            content[f"{folder}/model.sig"] = signature
            files.append(FileDigest("model.sig", len(signature), sha256_bytes(signature)))
            manifest["files"] = [file.as_dict() for file in sorted(files)]
            content[f"{folder}/manifest.json"] = data = canonical_json(manifest)
            if with_entry:
                append(content, Fact("release", task, version, sha256_bytes(data), "x"), world.forger)

        yield Case(f"other weights in {folder}", (f"{folder}/manifest.json",), other_weights)

        def entered(content: Content, change: Callable[..., None] = other_weights) -> None:
            change(content, with_entry=True)

        last = LAST.format(len(entries_of(world.content)) + 1)
        yield Case(f"other weights in {folder}, entered", (f"{folder}/manifest.json", last), entered)

    def planted_release(content: Content) -> None:
        for key in [key for key in content if key.startswith("releases/digits/2/")]:
            content[key.replace("/2/", "/9/")] = content[key]
        manifest = json.loads(content["releases/digits/9/manifest.json"]) | {"version": 9}
        content["releases/digits/9/manifest.json"] = canonical_json(manifest)

    yield Case("a planted release", ("releases/digits/9/manifest.json",), planted_release)


def changed(file: FileDigest, data: bytes) -> FileDigest:
    if file.path != "model.safetensors":
        return file
    return FileDigest(file.path, len(data), sha256_bytes(data))


def forged_signatures(world: World) -> Iterator[Case]:
    """Signatures stripped, moved, or by the forger: under the forger's name, and under a trusted one."""
    keys = [key for key in world.content if key.startswith("signatures/")]
    for number, key in enumerate(keys):
        _, digest, name = key.split("/")
        keyid, envelope = name.removesuffix(".json"), open_envelope(world.content[key])
        by_forger = open_envelope(seal(envelope.payload, STATEMENT_TYPE, world.forger)).signatures[0][1]
        stripped = Envelope(envelope.payload, STATEMENT_TYPE, ()).data
        forged = Envelope(envelope.payload, STATEMENT_TYPE, ((keyid, by_forger),)).data
        signature = open_envelope(world.content[keys[number - 1]]).signatures
        moved = Envelope(envelope.payload, STATEMENT_TYPE, signature).data
        for what, data in (("stripped", stripped), ("forged", forged), ("moved", moved)):
            yield Case(f"{what} {key}", (key,), set_to(key, data))
        own = f"signatures/{digest}/{world.forger.keyid}.json"

        def replaced(content: Content, key: str = key, own: str = own, payload: bytes = envelope.payload) -> None:
            del content[key]
            content[own] = seal(payload, STATEMENT_TYPE, world.forger)

        yield Case(f"signed by the forger {key}", (own,), replaced)

    def forged_record(content: Content) -> None:
        statement = json.loads(open_envelope(content[keys[0]]).payload)
        statement["predicate"]["buildDefinition"]["externalParameters"]["parameters"] = {}
        data = canonical_json(statement)
        content[f"records/{sha256_bytes(data)}.json"] = data
        content[f"signatures/{sha256_bytes(data)}/{world.forger.keyid}.json"] = seal(data, STATEMENT_TYPE, world.forger)

    content = dict(world.content)
    forged_record(content)
    new = tuple(sorted(key for key in content.keys() - world.content.keys() if key.startswith("signatures/")))
    yield Case("a record of the forger's", new, forged_record)
    for key in [key for key in world.content if key.endswith("index.json")]:
        envelope = open_envelope(world.content[key])
        yield Case(
            f"signed anew {key}", (key,), set_to(key, seal(envelope.payload, envelope.payload_type, world.forger))
        )


def planted(world: World) -> Iterator[Case]:
    """Things that nobody put there."""
    public = world.forger.public
    record = next(key for key in world.content if key.startswith("records/"))
    things = {
        f"keys/{public.keyid}.pem": public.pem.encode(),
        "aliases/digits/production.json": world.content["aliases/digits/champion.json"],
        "releases/digits/1/extra.bin": b"x",
        "records/" + "0" * 64 + ".json": world.content[record],
        "locks/" + "0" * 64 + ".txt": b"torch==1.0\n",
        "rows/elsewhere/all.bin": b"x" * 20,
        "ledger/00000000.json": world.content[LAST.format(1)],
        "ledger/notes.txt": b"x",
        erased_shard(world.content): b"the rows that were erased",
        "somewhere/else.json": b"{}",
        "README": b"x",
    }
    for key, data in things.items():
        yield Case(f"planted {key}", (key,), set_to(key, data))


def test_the_untouched_store_is_whole_with_and_without_a_checkpoint(world: World) -> None:
    for verdict in (look(world.store), look(world.store, world.checkpoint)):
        assert verdict.whole
        assert [finding.kind for finding in verdict.findings] == ["erased"]


def erased_shard(content: Content) -> str:
    """Return the key of an object that an erasure removed."""
    (receipt,) = [data for key, data in content.items() if key.startswith("erasures/")]
    (key,) = json.loads(open_envelope(receipt).payload)["objects_of_store"]
    return str(key)


# What only evidence from outside can tell


def test_a_ledger_rewritten_by_a_trusted_key_is_found_by_a_checkpoint_alone(world: World) -> None:
    content = dict(world.content)
    signer = load_keyring().signer()
    entries = entries_of(content)
    first = next(e.sequence for e in entries if e.key == signer.keyid)
    rewrite(content, first, signer)
    aliases = {(e.task, e.alias): e for e in entries_of(content) if e.alias}
    assert aliases
    store = MemoryStore(world.store.url, content)
    assert look(store).whole, "without a checkpoint nothing tells it from the one that it replaces"
    (finding,) = faults(look(store, world.checkpoint))
    assert finding.kind == "tampered"
    assert "rewritten" in finding.actual


def test_a_whole_store_of_a_forgers_own_is_found_by_each_kind_of_anchor(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_keyring().signer().keyid
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_KEYS", str(tmp_path / "forger"))
        forged = MemoryStore("memory", {})
        fill(forged, tmp_path / "work")
        assert look(forged).whole, "it is whole to whom made it"
    for options, checkpoints in (({}, ()), ({"first_key": first}, ()), ({}, (world.checkpoint,))):
        verdict = look(forged, *checkpoints, **options)
        assert "ledger/00000001.json" in " ".join(f.place for f in verdict.findings)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "an auditor without keys"))
    (finding,) = faults(look(world.store))
    assert (finding.kind, finding.place) == ("unknown key", "ledger/00000001.json")
    genuine = entries_of(world.content)[0].key
    for options, checkpoints in (({"first_key": genuine}, ()), ({}, (world.checkpoint,))):
        assert look(world.store, *checkpoints, **options).whole


# No false alarms


class KilledError(Exception):
    """The process died."""


class Killed(MemoryStore):
    """A store whose writer dies before its nth write."""

    def __init__(self, content: Content, writes: int) -> None:
        super().__init__("memory", content)
        self.left = writes

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        self._count()
        return super().put_if_absent(key, content)

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        self._count()
        return super().replace(key, data, tag)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError


UNFINISHED = {("unsigned", "releases/digits/2/manifest.json"), ("tampered", "aliases/digits/champion.json")}
"""What is true of a publication that was killed at its last two writes, until it runs again."""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own."""
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_publication_that_was_killed_at_any_write_and_ran_again_raises_no_alarm(alone: Path) -> None:
    publisher = Publisher(alone / "work", MemoryStore("memory", {}))
    publisher.release("digits", "one")
    before = dict(publisher.store.content)  # type: ignore[attr-defined]
    draft, late, writes = publisher.draft("digits", "two"), 0, 0
    while True:
        store = Killed(dict(before), writes)
        try:
            publish(store, draft, Publication("two"))
            break
        except KilledError:
            left = {(finding.kind, finding.place) for finding in look(store).findings}
            # What was stored so far is of no release yet; or released and not entered; or the alias not yet moved.
            of_no_release = {(kind, place) for kind, place in left if place.startswith("records/")}
            assert left - of_no_release <= UNFINISHED, writes
            late += bool(left & UNFINISHED)
        store.left = 1000
        publish(store, draft, Publication("two"))
        assert look(store).findings == (), writes
        writes += 1
    assert writes > 15
    assert late == 2


def test_stores_of_every_shape_raise_no_alarm(alone: Path, world: World) -> None:
    store = open_store(str(alone / "store"))
    publisher = Publisher(alone / "work", store)
    refused = publisher.draft("digits", "refused")
    keep(store, Provenance(refused.records, refused.envelopes, refused.locks), load_keyring())
    assert look(store).findings == (), "what the gate refused leaves its records"
    publisher.release("digits", "one")
    assert look(store).findings == ()
    claim = canonical_json({"publication": "killed", "payload": "0" * 64})
    store.put_if_absent("releases/digits/2/claim.json", claim)
    store.put_if_absent("releases/digits/2/model.safetensors", b"half of it")
    publisher.release("digits", "two")
    rollback(store, "digits", 1)
    rotate(store)
    publisher.release("digits", "three")
    assert look(store).findings == ()
    verdict = verify(open_store(str(alone / "store")))
    assert (verdict.findings, verdict.anchors != ()) == ((), True)
