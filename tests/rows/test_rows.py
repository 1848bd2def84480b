"""The row index: every row is found where it is, whatever the store, and nothing else is."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

from servers import moto_endpoint, moto_url, real_url, store_url

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.rows import building, erasing, finding, shards
from graftline.rows.blocklist import Blocklist, block
from graftline.rows.building import build
from graftline.rows.erasing import remove
from graftline.rows.finding import RowHit, find_row, find_subject, indexed
from graftline.rows.segments import SPLITS, Segment, change_list, read_index, read_list
from graftline.rows.subjects import check_value, hash_subject, key_path, load_key
from graftline.signing.envelope import open_envelope
from graftline.store import Store
from graftline.store.opening import open_store

__all__ = ["moto_endpoint", "moto_url", "real_url", "store_url"]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many segments become one: fewer than in use."""
    monkeypatch.setattr(building, "MERGED", 4)
    return building.MERGED


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def digest_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def dataset_of(number: int) -> str:
    return hashlib.sha256(f"dataset {number}".encode()).hexdigest()


def rows_parquet(path: Path, numbers: Iterable[int], subjects: list[bytes | None] | None = None) -> Path:
    """Write the rows whose content is a number; each has the row number of its place."""
    content = list(numbers)
    splits = [SPLITS[number % 4] for number in content]
    columns = {
        "row": pa.array(range(len(content)), pa.int64()),
        "digest": pa.array([digest_of(number) for number in content], pa.binary(32)),
        "split": pa.array(splits, pa.string()),
    }
    if subjects is not None:
        columns["subject"] = pa.array(subjects, pa.binary(16))
    pq.write_table(pa.table(columns), path)
    return path


def test_each_row_is_found_in_each_dataset_that_holds_it(store: Store, tmp_path: Path) -> None:
    build(rows_parquet(tmp_path / "a.parquet", range(100)), store, "digits", dataset_of(1))
    build(rows_parquet(tmp_path / "b.parquet", [*range(50, 150), 60]), store, "letters", dataset_of(2))
    assert find_row(store, digest_of(7)) == [RowHit("digits", dataset_of(1), 7, "unlabelled")]
    assert find_row(store, digest_of(60)) == [
        RowHit("digits", dataset_of(1), 60, "train"),
        RowHit("letters", dataset_of(2), 10, "train"),
        RowHit("letters", dataset_of(2), 100, "train"),
    ]
    assert find_row(store, digest_of(1000)) == []


def test_many_shards_in_bounded_buckets_give_the_rows_of_one(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 128)
    monkeypatch.setattr(building, "_BATCH", 70)
    build(rows_parquet(tmp_path / "rows.parquet", range(2_000)), folder_store, "digits", dataset_of(1))
    (segment,), _ = read_list(folder_store, "rows", "digits")
    assert segment.digits == 3
    assert len(read_index(folder_store, "rows", segment)) > 300
    sizes = [path.stat().st_size for path in Path(folder_store.url, "rows", segment.name).glob("*.bin")]
    assert sum(sizes) == 2_000 * 19
    for number in range(0, 2_000, 137):
        assert find_row(folder_store, digest_of(number)) == [
            RowHit("digits", dataset_of(1), number, SPLITS[number % 4])
        ]


def test_equal_datasets_have_equal_shards_whatever_their_order(tmp_path: Path) -> None:
    def sorted_shards(order: Iterable[int], folder: Path) -> list[tuple[str, bytes]]:
        folder.mkdir()
        sorter, numbers = shards.Sorter(folder), np.array(list(order))
        digests = np.frombuffer(b"".join(digest_of(n)[:16] for n in numbers), np.uint8).reshape(-1, 16)
        sorter.add(digests, numbers, numbers % 4)
        return list(sorter.shards(shards.Layout(2, several=False)))

    assert sorted_shards(range(3000), tmp_path / "a") == sorted_shards(range(2999, -1, -1), tmp_path / "b")


def test_building_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    path = rows_parquet(tmp_path / "rows.parquet", range(10))
    for _ in range(2):
        build(path, store, "digits", dataset_of(1))
    assert len(read_list(store, "rows", "digits")[0]) == 1
    assert len(find_row(store, digest_of(3))) == 1


def test_a_build_that_ended_half_way_is_finished_by_the_next(folder_store: Store, tmp_path: Path) -> None:
    path = rows_parquet(tmp_path / "rows.parquet", range(10))
    build(path, folder_store, "digits", dataset_of(1))
    folder_store.delete("rows/tasks/digits.json")
    assert find_row(folder_store, digest_of(3)) == []
    build(path, folder_store, "digits", dataset_of(1))
    assert len(find_row(folder_store, digest_of(3))) == 1


def test_many_versions_of_a_task_are_merged_and_all_found(store: Store, tmp_path: Path, few: int) -> None:
    for version in range(few + 2):
        path = rows_parquet(tmp_path / "rows.parquet", range(version, version + 30))
        build(path, store, "digits", dataset_of(version))
    assert sorted(len(s.datasets) for s in read_list(store, "rows", "digits")[0]) == [1, 1, few]
    assert indexed(store, "rows", "digits") == {dataset_of(version) for version in range(few + 2)}
    hits = find_row(store, digest_of(17))
    expected = [(dataset_of(version), 17 - version) for version in range(few + 2)]
    assert [(hit.dataset, hit.row) for hit in hits] == sorted(expected)
    assert not any(dataset_of(0) in key for key in store.list("rows/"))


@pytest.mark.parametrize("merged", [False, True])
def test_a_removed_row_is_gone_and_its_neighbours_stay(store: Store, tmp_path: Path, few: int, merged: bool) -> None:
    versions = few if merged else 1
    for version in range(versions):
        build(rows_parquet(tmp_path / "rows.parquet", range(100)), store, "digits", dataset_of(version))
    (change,) = remove(store, "rows", digest_of(5))
    assert change.entries == versions
    assert change.before != change.after
    assert find_row(store, digest_of(5)) == []
    assert all(len(find_row(store, digest_of(n))) == versions for n in (4, 6, 99))
    shards_left = [store.get(key).data for key in store.list("rows/") if key.endswith(".bin")]
    assert not any(digest_of(5)[:16] in data for data in shards_left)
    assert remove(store, "rows", digest_of(5)) == []


def test_a_removal_that_ended_half_way_is_finished_by_the_next(folder_store: Store, tmp_path: Path) -> None:
    build(rows_parquet(tmp_path / "rows.parquet", range(100)), folder_store, "digits", dataset_of(1))
    index_key, list_key = f"rows/{dataset_of(1)}/index.json", "rows/tasks/digits.json"
    (shard_key,) = (key for key in folder_store.list("rows/") if key.endswith(".bin"))
    before = {key: folder_store.get(key).data for key in (shard_key, index_key, list_key)}
    remove(folder_store, "rows", digest_of(5))
    done = folder_store.list("rows/")
    # The states in which a killed removal leaves the store: each earlier object is still there.
    for ended in ([shard_key, index_key, list_key], [shard_key, list_key], [shard_key]):
        for key in ended:
            Path(folder_store.url, key).write_bytes(before[key])
        remove(folder_store, "rows", digest_of(5))
        assert folder_store.list("rows/") == done
        assert find_row(folder_store, digest_of(5)) == []
        assert len(find_row(folder_store, digest_of(6))) == 1


def test_a_removal_does_not_sign_what_someone_changed(folder_store: Store, tmp_path: Path) -> None:
    build(rows_parquet(tmp_path / "rows.parquet", range(100)), folder_store, "digits", dataset_of(1))
    (shard_key,) = (key for key in folder_store.list("rows/") if key.endswith(".bin"))
    path = Path(folder_store.url, shard_key)
    path.write_bytes(path.read_bytes()[20:] + b"\xff" * 20)
    with pytest.raises(InputError, match="sha256"):
        remove(folder_store, "rows", digest_of(5))


def ready_to_merge(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Segment]:
    """Store four segments that the next publisher merges; return them."""
    for version in range(4):
        build(rows_parquet(folder / "rows.parquet", range(20)), store, "digits", dataset_of(version))
    monkeypatch.setattr(building, "MERGED", 4)
    return read_list(store, "rows", "digits")[0]


def stored_digests(store: Store, number: int) -> list[str]:
    """Return the keys of all shards, listed or not, that hold the row."""
    keys = [key for key in store.list("rows/") if key.endswith(".bin")]
    return [key for key in keys if digest_of(number)[:16] in store.get(key).data]


@pytest.mark.parametrize("looked_before", [False, True])
def test_a_merge_that_runs_beside_a_removal_does_not_undo_it(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_before: bool
) -> None:
    chosen = ready_to_merge(folder_store, tmp_path, monkeypatch)
    merged = building._merged(folder_store, "rows", "digits", chosen)
    change_list, swaps = erasing.change_list, []

    def swap_first(*arguments: Any) -> Any:  # the indices are replaced, the list is not
        if not swaps:
            with monkeypatch.context() as patch:
                if looked_before:  # the merge compared the indices just before they were replaced
                    patch.setattr(building, "_unchanged", lambda *_: True)
                swaps.append(building._swap(folder_store, "rows", "digits", chosen, merged))
        return change_list(*arguments)

    monkeypatch.setattr(erasing, "change_list", swap_first)
    remove(folder_store, "rows", digest_of(5))
    assert swaps == [looked_before]
    assert find_row(folder_store, digest_of(5)) == []
    assert len(find_row(folder_store, digest_of(6))) == 4
    assert stored_digests(folder_store, 5) == []


def test_a_merge_that_was_killed_before_an_erasure_stops_no_later_publisher(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ready_to_merge(folder_store, tmp_path, monkeypatch)
    merged = building._merged(folder_store, "rows", "digits", chosen)  # killed before the swap
    remove(folder_store, "rows", digest_of(5))
    assert stored_digests(folder_store, 5) == []
    build(rows_parquet(tmp_path / "rows.parquet", range(20)), folder_store, "digits", dataset_of(9))
    found = read_list(folder_store, "rows", "digits")[0]
    assert sorted(len(segment.datasets) for segment in found) == [1, 4]
    assert merged.name not in {segment.name for segment in found}
    assert len(find_row(folder_store, digest_of(6))) == 5
    assert {key.split("/")[1] for key in folder_store.list("rows/")} == {"tasks", *(s.name for s in found)}


def test_a_merge_that_lost_its_swap_leaves_nothing(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ready_to_merge(folder_store, tmp_path, monkeypatch)
    merged = building._merged(folder_store, "rows", "digits", chosen)
    before = folder_store.list(f"rows/{merged.name}/")
    remove(folder_store, "rows", digest_of(30))  # of no row: nothing changes, and what may yet be listed stays
    assert folder_store.list(f"rows/{merged.name}/") == before != []
    change_list(folder_store, "rows", "digits", lambda known: known[1:])  # as by another publisher
    assert not building._swap(folder_store, "rows", "digits", chosen, merged)
    assert folder_store.list(f"rows/{merged.name}/") == []


@pytest.mark.parametrize("by", ["an erasure", "the next merge"])
def test_what_a_killed_publisher_left_of_merged_segments_is_deleted(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    chosen = ready_to_merge(folder_store, tmp_path, monkeypatch)
    merged = building._merged(folder_store, "rows", "digits", chosen)
    assert building._swap(folder_store, "rows", "digits", chosen, merged)  # killed before it deletes these
    assert len(stored_digests(folder_store, 5)) == 5
    if by == "an erasure":
        remove(folder_store, "rows", digest_of(5))
        assert stored_digests(folder_store, 5) == []
    else:
        for version in range(4, 8):
            build(rows_parquet(tmp_path / "r.parquet", range(20)), folder_store, "digits", dataset_of(version))
        assert len(stored_digests(folder_store, 5)) == 2
    assert len(find_row(folder_store, digest_of(6))) == (4 if by == "an erasure" else 8)


def test_an_erasure_reaches_shards_that_a_killed_publisher_has_not_even_indexed(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(rows_parquet(tmp_path / "rows.parquet", range(20)), folder_store, "digits", dataset_of(1))
    folder_store.delete("rows/tasks/digits.json")
    folder_store.delete(f"rows/{dataset_of(1)}/index.json")
    assert stored_digests(folder_store, 5) != []
    remove(folder_store, "rows", digest_of(5))
    assert stored_digests(folder_store, 5) == []


def name_an_unsigned_index(store: Store, segment: Segment) -> None:
    """Let the task's list name an index of the same content that nobody has signed."""
    key = f"rows/{segment.name}/index.json"
    data = replace(open_envelope(store.get(key).data), signatures=()).data
    Path(store.url, key).write_bytes(data)
    other = replace(segment, index=sha256_bytes(data))
    change_list(store, "rows", "digits", lambda known: [other if s == segment else s for s in known])


def test_an_index_that_nobody_signed_is_not_signed_by_a_removal_or_a_merge(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ready_to_merge(folder_store, tmp_path, monkeypatch)[0]
    name_an_unsigned_index(folder_store, first)
    with pytest.raises(InputError, match=r"index\.json: signed by key none"):
        remove(folder_store, "rows", digest_of(5))
    build(rows_parquet(tmp_path / "rows.parquet", range(20)), folder_store, "digits", dataset_of(9))
    assert [len(s.datasets) for s in read_list(folder_store, "rows", "digits")[0]] == [1] * 5
    assert "stay apart" in capsys.readouterr().err


def test_a_question_beside_a_removal_is_asked_again(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(rows_parquet(tmp_path / "rows.parquet", range(20)), folder_store, "digits", dataset_of(1))
    read_lists, lists = finding.read_lists, []

    def erase_after(*arguments: Any) -> Any:
        lists.append(read_lists(*arguments))
        if len(lists) == 1:
            remove(folder_store, "rows", digest_of(5))
        return lists[-1]

    monkeypatch.setattr(finding, "read_lists", erase_after)
    assert len(find_row(folder_store, digest_of(6))) == 1
    assert len(lists) == 2


@pytest.mark.parametrize("name", ["all-", "index.json"])
def test_a_changed_index_is_refused(folder_store: Store, tmp_path: Path, name: str) -> None:
    build(rows_parquet(tmp_path / "rows.parquet", range(100)), folder_store, "digits", dataset_of(1))
    (key,) = folder_store.list(f"rows/{dataset_of(1)}/{name}")
    path = Path(folder_store.url, key)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=name):
        find_row(folder_store, digest_of(5))


def test_a_person_is_found_by_id_and_the_id_is_nowhere_in_the_store(folder_store: Store, tmp_path: Path) -> None:
    subject = "person-4711@example.org"
    hashed = hash_subject(subject, load_key(create=True))
    path = rows_parquet(tmp_path / "rows.parquet", range(4), [hashed, None, hashed, b"x" * 16])
    build(path, folder_store, "digits", dataset_of(1))
    assert [(hit.row, hit.split) for hit in find_subject(folder_store, subject)] == [(0, "train"), (2, "test")]
    assert find_subject(folder_store, "another") == []
    stored = b"".join(folder_store.get(key).data for key in folder_store.list(""))
    assert subject.encode() not in stored
    assert load_key(create=False) not in stored


def test_the_subjects_key_is_made_once_and_for_this_user_only() -> None:
    first = load_key(create=True)
    assert load_key(create=True) == first
    assert len(first) == 32
    assert key_path().stat().st_mode & 0o777 == 0o600


def test_with_another_key_than_persons_were_erased_with_nobody_is_looked_up(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_key(create=True)
    block(folder_store, "digits", [], [hash_subject("someone", key).hex()], key=key)
    assert find_subject(folder_store, "someone") == []
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "another"))
    other = load_key(create=True)
    with pytest.raises(InputError, match=check_value(key)):
        find_subject(folder_store, "someone")
    with pytest.raises(InputError, match="another key for subjects"):
        block(folder_store, "digits", [], [hash_subject("another", other).hex()], key=other)


def test_without_the_key_a_person_cannot_be_looked_up(folder_store: Store) -> None:
    with pytest.raises(InputError, match="no key for subjects"):
        find_subject(folder_store, "someone")


def test_a_lists_key_is_that_of_its_subjects() -> None:
    """A key without subjects vouches for nobody; of subjects without a key nobody knows whose hash they are."""
    assert Blocklist(key="a" * 16).union((), ["1" * 32], "b" * 16).key == "b" * 16
    assert Blocklist(subjects=("2" * 32,)).union((), ["1" * 32], "b" * 16).key is None
    assert Blocklist(subjects=("2" * 32,), key="a" * 16).union(["3" * 64], ()).key == "a" * 16
