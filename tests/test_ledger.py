"""The ledger: append-only, chained, and every change of what is in it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graftline.canonical import canonical_json
from graftline.errors import InputError
from graftline.ledger import START, Fact, Ledger, read_ledger
from graftline.store import Store, open_store


def fact(identity: str, version: int = 1, alias: str | None = None) -> Fact:
    return Fact("promote" if alias else "release", "digits", version, "0" * 64, identity, alias)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path))
    ledger = Ledger(store)
    for version in (1, 2, 3):
        ledger.append(lambda _, version=version: fact(f"release-{version}", version))
    return store


def test_entries_are_numbered_from_one_and_chained(store: Store) -> None:
    entries = read_ledger(store)
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert entries[0].previous == START
    assert store.list("ledger/") == [f"ledger/0000000{n}.json" for n in (1, 2, 3)]
    assert len({entry.previous for entry in entries}) == 3


def test_a_fact_is_appended_once(store: Store) -> None:
    ledger = Ledger(store)
    first = ledger.append(lambda _: fact("again", 4))
    assert Ledger(store).append(lambda _: fact("again", 4)) == first
    assert len(read_ledger(store)) == 4


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


def test_nothing_is_appended_if_nothing_is_wanted(store: Store) -> None:
    assert Ledger(store).append(lambda _: None) is None
    assert len(read_ledger(store)) == 3


def changed(path: Path, **values: object) -> None:
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | values))


def test_a_missing_entry_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "ledger" / "00000002.json").unlink()
    with pytest.raises(InputError, match=r"00000002.json: missing, and ledger/00000003.json is there"):
        read_ledger(store)


def test_a_changed_entry_breaks_the_chain_at_the_next(store: Store, tmp_path: Path) -> None:
    changed(tmp_path / "ledger" / "00000002.json", version=7)
    with pytest.raises(InputError, match=r"00000003.json: follows"):
        read_ledger(store)


def test_swapped_entries_break_the_chain(store: Store, tmp_path: Path) -> None:
    one, two = tmp_path / "ledger" / "00000001.json", tmp_path / "ledger" / "00000002.json"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(InputError, match=r"00000001.json"):
        read_ledger(store)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"sequence": 3}'])
def test_bytes_that_are_no_entry_are_named(store: Store, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ledger" / "00000003.json").write_bytes(data)
    with pytest.raises(InputError, match=r"00000003.json: not an entry"):
        read_ledger(store)


def test_an_entry_in_another_form_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ledger" / "00000003.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    with pytest.raises(InputError, match="not an entry in canonical form"):
        read_ledger(store)
