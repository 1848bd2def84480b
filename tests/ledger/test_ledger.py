"""The ledger: append-only, chained, signed, and every change of what is in it shows."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from facts import changed, fact, new_signer, path_of, release, resigned

from graftline.ledger.cache import Cache
from graftline.ledger.checkpoint import make_checkpoint, remember, seen
from graftline.ledger.entries import START, BrokenLedgerError, Fact
from graftline.ledger.log import Ledger, read_chain
from graftline.ledger.merkle import Tree
from graftline.signing.keyring import load_keyring
from graftline.store import Store
from graftline.store.opening import open_store


def test_entries_are_numbered_from_one_chained_signed_and_carry_the_root_of_all_before(store: Store) -> None:
    entries = read_chain(store).entries
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4]
    assert entries[0].previous == START
    assert store.list("ledger/") == [f"ledger/0000000{n}.json" for n in (1, 2, 3, 4)]
    leaves = [store.get(key).data for key in store.list("ledger/")]
    assert [entry.root for entry in entries] == [Tree(leaves[:n]).root().hex() for n in range(4)]
    signer = load_keyring(create=False).signer()
    assert {entry.key for entry in entries} == {signer.keyid}
    assert all(signer.public.verify(entry.signed, base64.b64decode(entry.signature)) for entry in entries)


def test_the_first_entry_is_the_signers_key(store: Store) -> None:
    first = read_chain(store).entries[0]
    public = load_keyring(create=False).signer().public
    assert (first.event, first.digest, first.task) == ("key", public.keyid, "")
    assert first.detail == {"action": "trust", "public_key": public.pem}


def test_nothing_is_appended_if_nothing_is_wanted(tmp_path: Path) -> None:
    empty = open_store(str(tmp_path / "empty"))
    assert Ledger(empty).append(lambda _: None) is None
    assert read_chain(empty).entries == []


def test_a_fact_is_appended_once(store: Store) -> None:
    first = Ledger(store).append(lambda _: fact("again", 4))
    assert Ledger(store).append(lambda _: fact("again", 4)) == first
    assert len(read_chain(store).entries) == 5


def test_an_erasure_keeps_what_it_touched(store: Store) -> None:
    detail = {"releases": ["digits@1", "digits@2"], "rows": 7, "reason": None}
    Ledger(store).append(lambda _: Fact("erase", "digits", 0, "a" * 64, "erase-1", detail=detail))
    assert read_chain(store).entries[-1].detail == detail


def test_who_loses_the_place_decides_again_in_view_of_the_winner(store: Store) -> None:
    slow, quick = Ledger(store), Ledger(store)
    quick.append(lambda _: fact("quick", 9, "champion"))
    seen = []

    def only_if_higher(ledger: Ledger) -> Fact | None:
        current = ledger.current("digits", "champion")
        seen.append(current and current.version)
        return None if current and current.version > 5 else fact("slow", 5, "champion")

    assert slow.append(only_if_higher) is None
    assert seen == [None, 9]
    current = slow.current("digits", "champion")
    assert current is not None
    assert current.version == 9


def test_a_fact_that_readers_would_refuse_is_not_stored(store: Store) -> None:
    with pytest.raises(BrokenLedgerError, match="digest is no sha256"):
        Ledger(store).append(lambda _: replace(fact("bad"), digest="latest"))
    assert len(read_chain(store).entries) == 4


def test_a_missing_entry_is_named(store: Store) -> None:
    path_of(store, 2).unlink()
    for read in (read_chain, Ledger):
        with pytest.raises(BrokenLedgerError, match=r"00000002.json: missing, and ledger/00000003.json is there"):
            read(store)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 7), ("task", "letters"), ("event", "promote"), ("alias", "champion"), ("digest", "1" * 64),
        ("id", "release-7"), ("at", "2020-01-01T00:00:00Z"), ("actor", "mallory"), ("detail", {"a": 1}),
    ],
)  # fmt: skip
def test_what_an_entry_says_is_signed(store: Store, field: str, value: object) -> None:
    changed(path_of(store, 4), **{field: value})  # the last one, which no other entry vouches for
    with pytest.raises(BrokenLedgerError, match=r"00000004.json: its signature is not one of key"):
        read_chain(store)


def test_where_an_entry_stands_is_signed(store: Store) -> None:
    for field, line in (("sequence", "follows"), ("previous", "follows"), ("root", "as the root of all before")):
        kept = path_of(store, 4).read_bytes()
        changed(path_of(store, 4), **{field: 5 if field == "sequence" else "1" * 64})
        with pytest.raises(BrokenLedgerError, match=rf"00000004.json: .*{line}"):
            read_chain(store)
        path_of(store, 4).write_bytes(kept)


def test_swapped_and_replayed_entries_break_the_chain(store: Store) -> None:
    two, three = path_of(store, 2), path_of(store, 3)
    second, third = two.read_bytes(), three.read_bytes()
    path_of(store, 5).write_bytes(third)
    with pytest.raises(BrokenLedgerError, match=r"00000005.json: follows"):
        read_chain(store)
    path_of(store, 5).unlink()
    two.write_bytes(third)
    three.write_bytes(second)
    with pytest.raises(BrokenLedgerError, match=r"00000002.json: follows"):
        read_chain(store)


def test_each_bit_of_the_last_entry_counts(store: Store) -> None:
    path = path_of(store, 4)
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 7]) + data[place + 1 :])
        with pytest.raises(BrokenLedgerError, match=r"00000004.json"):
            read_chain(store)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"sequence": 3}', b"[" * 100_000, b"1" * 10_000, b'"\\ud800"']
)
def test_bytes_that_are_no_entry_are_named(store: Store, data: bytes) -> None:
    path_of(store, 4).write_bytes(data)
    for read in (read_chain, Ledger):
        with pytest.raises(BrokenLedgerError, match=r"00000004.json: not an entry"):
            read(store)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", "4"), ("sequence", True), ("version", -1), ("version", 1.5), ("version", 1 << 60),
        ("task", None), ("alias", 7), ("detail", []), ("key", "x"), ("event", "delete"), ("signature", "AAA"),
        ("signature", None), ("extra", 1),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_no_entry(store: Store, field: str, value: object) -> None:
    path = path_of(store, 4)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {field: value}, separators=(",", ":")))
    with pytest.raises(BrokenLedgerError, match=r"00000004.json: not an entry"):
        read_chain(store)


def test_an_entry_in_another_form_is_refused(store: Store) -> None:
    path = path_of(store, 4)
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    with pytest.raises(BrokenLedgerError, match="not in canonical form"):
        read_chain(store)


def test_a_ledger_of_a_version_that_did_not_sign_is_refused_and_says_so(store: Store) -> None:
    value = json.loads(path_of(store, 1).read_bytes())
    for name in ("signature", "key", "root", "detail"):
        del value[name]
    path_of(store, 1).write_text(json.dumps(value))
    with pytest.raises(BrokenLedgerError, match=r"no signature.*of a version that did not sign"):
        read_chain(store)


def test_an_entry_by_a_key_that_the_ledger_does_not_know_is_refused(store: Store, tmp_path: Path) -> None:
    mallory = new_signer(tmp_path)
    first, *_, fourth = read_chain(store).entries
    path_of(store, 4).write_bytes(resigned(fourth, mallory, version=9))
    with pytest.raises(
        BrokenLedgerError, match=rf"00000004.json: signed by key {mallory.keyid}, which is unknown there"
    ):
        read_chain(store)
    path_of(store, 1).write_bytes(resigned(first, mallory))
    with pytest.raises(BrokenLedgerError, match=r"00000001.json: the first entry does not bring the key"):
        read_chain(store)


# What this machine has verified before


def long_ledger(url: str) -> Store:
    store = open_store(url)
    release(store, *range(1, 41))
    return store


class Counting:
    """A store that counts which keys are read."""

    def __init__(self, store: Store) -> None:
        self.store, self.url, self.read = store, store.url, []

    def get(self, key: str):  # type: ignore[no-untyped-def]
        self.read.append(key)
        return self.store.get(key)

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self.store, name)


def test_what_was_verified_before_is_not_fetched_again(store_url: str) -> None:
    store = Counting(long_ledger(store_url))
    ledger = Ledger(store)
    assert len(ledger.entries) == 41
    assert not set(store.read) & {f"ledger/{n:08d}.json" for n in range(2, 32)}
    ledger.append(lambda _: fact("one more", 99))
    store.read.clear()
    assert [entry.data for entry in read_chain(store).entries] == [entry.data for entry in Ledger(store.store).entries]
    assert len(store.read) == 42, "reading to verify takes nothing from the cache"


def cache_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "ledger").iterdir()
    return path


@pytest.mark.parametrize("damage", ["cut", "bit", "line", "root", "garbage", "empty"])
def test_a_damaged_cache_is_read_anew(tmp_path: Path, damage: str) -> None:
    store = long_ledger(str(tmp_path / "store"))
    path = cache_file(tmp_path)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes(
        {
            "cut": data[:-100],
            "bit": data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
            "line": b"".join(lines[:5] + lines[6:]),
            "root": b"".join([*lines[:-1], b"0" * 64 + lines[-1][64:]]),
            "garbage": b"\xff\n\n{}\n",
            "empty": b"",
        }[damage]
    )
    assert len(Ledger(store).entries) == 41
    assert cache_file(tmp_path).read_bytes().count(b"\n") == 41, "it was written again"


def test_a_ledger_that_was_cut_or_exchanged_is_not_continued(tmp_path: Path) -> None:
    store = long_ledger(str(tmp_path / "store"))  # of which the first 32 entries are in the cache
    kept = path_of(store, 32).read_bytes()
    for sequence in range(32, 42):
        path_of(store, sequence).unlink()
    with pytest.raises(BrokenLedgerError, match=r"00000032.json: missing; .*if it is meant to be another, delete"):
        Ledger(store)
    path_of(store, 32).write_bytes(path_of(store, 31).read_bytes())
    with pytest.raises(BrokenLedgerError, match=r"00000032.json: other than what this machine has verified"):
        Ledger(store)
    path_of(store, 32).write_bytes(kept)
    assert len(Ledger(store).entries) == 32


def test_an_emptied_ledger_is_not_begun_anew_before_its_cache_is_deleted(tmp_path: Path) -> None:
    store = long_ledger(str(tmp_path / "store"))
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(BrokenLedgerError, match=r"00000032.json: missing; .*if it is meant to be another, delete"):
        release(store, 1)
    assert store.list("ledger/") == []
    cache_file(tmp_path).unlink()
    release(store, 1)
    assert len(read_chain(store).entries) == len(Ledger(store).entries) == 2


class Listing(Counting):
    """A store whose listing was taken while others appended: `left_out` was stored after its place was passed."""

    def __init__(self, store: Store, left_out: str) -> None:
        super().__init__(store)
        self.left_out = left_out

    def list(self, prefix: str) -> list[str]:
        return [key for key in self.store.list(prefix) if key != self.left_out]


def test_an_entry_that_a_listing_left_out_is_asked_for(store: Store) -> None:
    for sequence in (1, 3):
        listing = Listing(store, f"ledger/{sequence:08d}.json")
        assert [entry.sequence for entry in read_chain(listing).entries] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["00000003.json.bak", "zzz", "99999999.json", "00000000.json"])
def test_another_key_among_the_entries_is_named(store: Store, name: str) -> None:
    store.put_if_absent(f"ledger/{name}", b"{}")
    with pytest.raises(BrokenLedgerError, match=rf"missing, and ledger/{name} is there"):
        read_chain(store)


def test_equal_buckets_of_two_servers_are_two_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto_url: str
) -> None:
    one = long_ledger(moto_url)
    remember(one.identity, make_checkpoint(Ledger(one)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    two = open_store(moto_url)
    assert (one.url, Cache(one).path) == (two.url, cache_file(tmp_path))
    assert Cache(two).path != Cache(one).path
    assert Cache(two).read().entries == []
    assert seen(one.identity) and not seen(two.identity)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert open_store("s3://bucket/prefix").identity == "s3://bucket/prefix"


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", "/dev/null")
    assert len(Ledger(long_ledger(str(tmp_path / "store"))).entries) == 41
