"""Histories as a kind of column: what is read, what is bad, how they are divided, and their catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.dataset import SCHEMA, Schema
from graftline.errors import InputError
from graftline.problems.embedding import read_values
from graftline.raw.batches import RawBatch
from graftline.raw.reader import Source
from graftline.trunks.items.trunk import KIND as ITEMS
from graftline.values.columns import row_digests
from graftline.values.contract import load_contract
from graftline.values.items import Items, ItemsColumn, open_catalogue
from graftline.values.splits import read_histories


def batch(values: list[object], *, is_text: bool = False) -> RawBatch:
    array = pa.array(values)
    return RawBatch(Path("x"), 0, {"items": array}, is_text, np.full(len(array), 1, np.int64))


def test_an_item_of_a_history_is_taken_once_and_that_is_counted() -> None:
    found = Items().read(batch([["a", "b", "a"], ["c", "c"], ["d", "e"]]), "items")
    assert found.changes == {"repeated": 2}
    assert found.facts["length"].tolist() == [2, 1, 2]
    assert found.take(np.array([True, False, True])).to_pylist() == [["a", "b"], ["d", "e"]]


def test_items_may_be_numbers_and_in_csv_words() -> None:
    every = np.array([True])
    assert Items().read(batch([[7, 8]]), "items").take(every).to_pylist() == [["7", "8"]]
    assert Items().read(batch(["a  b"], is_text=True), "items").take(every).to_pylist() == [["a", "b"]]
    with pytest.raises(InputError, match="expected a list of items' ids"):
        Items().read(batch([[0.5]]), "items")


def test_a_question_is_read_as_a_history_in_raw_data_is(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('[7, "b", 7]\n{"items": "a  b a"}\n')
    pq.write_table(pa.table({"items": [[3, 3, 1]]}), tmp_path / "y.parquet")
    column = ItemsColumn("items")
    found = column.questions([tmp_path / "x.jsonl", tmp_path / "y.parquet"], ["b b"]).asked
    assert [one.value for one in found] == [["7", "b"], ["a", "b"], ["3", "1"], ["b"]]
    assert found == read_values([tmp_path / "x.jsonl", tmp_path / "y.parquet"], ["b b"], "items", ITEMS)
    assert column.question("x", [7, "7"]) == ["7"]
    for wrong in ("[true]", "[0.5]", "7", "[null]"):
        (tmp_path / "x.jsonl").write_text(wrong)
        with pytest.raises(InputError, match=r"x\.jsonl:1: .* is no text"):
            column.questions([tmp_path / "x.jsonl"], [])


def test_what_is_no_item_is_counted() -> None:
    facts = Items().read(batch([["a", " "], ["a", None], ["a", "b\x07"], ["a", "b"]]), "items").facts
    assert facts["empty"].tolist() == [1, 1, 0, 0]
    assert facts["controls"].tolist() == [0, 0, 1, 0]


def contract(tmp_path: Path, **rules: object) -> Path:
    path = tmp_path / "expectations.yaml"
    path.write_text(json.dumps({"columns": {"items": {"type": "items", **rules}}}))
    return path


@pytest.mark.parametrize(("ordered", "same"), [(False, True), (True, False)])
def test_sets_in_another_order_are_one_history_and_sequences_are_not(tmp_path: Path, ordered: bool, same: bool) -> None:
    rules = load_contract(contract(tmp_path, ordered=ordered))
    features, of_rows = row_digests({"items": pa.array([["a", "b"], ["b", "a"]])}, rules)
    assert (features[0] == features[1]).all() == same
    assert not (of_rows[0] == of_rows[1]).all()


def test_a_history_is_divided_by_its_content_alone() -> None:
    column = ItemsColumn("items", held_out=0.2)
    history = [f"i{n}" for n in range(10)]
    given, out = column.divide(history)
    assert len(out) == 2 and sorted(given + out) == sorted(history)
    assert column.divide(history[::-1]) == (given, out)
    assert len({tuple(column.divide([*history, f"x{n}"])[1]) for n in range(8)}) > 1
    for size in (2, 3, 4):
        parts = column.divide(history[:size])
        assert [len(part) for part in parts] == [size - 1, 1]


def test_of_an_ordered_history_the_last_items_are_held_out() -> None:
    assert ItemsColumn("items", ordered=True, held_out=0.4).divide(list("abcde")) == (list("abc"), list("de"))


def test_the_schema_keeps_what_divides_histories() -> None:
    schema = Schema(ItemsColumn("items", True, 0.3, 0.1), None)
    assert Schema.from_dict(json.loads(json.dumps(schema.as_dict()))) == schema


def write_dataset(folder: Path, column: ItemsColumn, val: list[list[str]], train: list[list[str]]) -> None:
    (folder / SCHEMA).write_text(json.dumps(Schema(column, None).as_dict()))
    kind = pa.list_(pa.string())
    rows = {"val": (val, 0), "train": (train, len(val)), "unlabelled": (val + train, 0), "test": (val, 0)}
    for name, (lists, first) in rows.items():
        table = pa.table({"row": np.arange(first, first + len(lists)), "items": pa.array(lists, kind)})
        pq.write_table(table, folder / f"{name}.parquet")


def test_the_pool_holds_no_cold_item_and_nothing_that_val_is_asked(tmp_path: Path) -> None:
    column = ItemsColumn("items", cold=0.3)
    items = [f"i{n}" for n in range(40)]
    cold = {item for item in items if column.is_cold(item)}
    assert 4 < len(cold) < 20
    val, train = [items[:20], items[20:]], [items[:10], items[10:30], [*sorted(cold)[:3], "i0"]]
    write_dataset(tmp_path, column, val, train)
    pool, asked = read_histories(tmp_path, "unlabelled"), read_histories(tmp_path, "val")
    assert not cold & {item for history in (*pool.items, *asked.items) for item in history}
    for place, history in enumerate(asked.items):
        given, out = column.divide(history)
        assert pool.items[place] == given
        assert not set(out) & set(pool.items[place])
    warm = [item for item in train[2] if item not in cold]
    assert len(read_histories(tmp_path, "train").items) == (3 if len(warm) > 1 else 2)
    assert read_histories(tmp_path, "test").items == val


def test_a_catalogue_lies_in_the_dataset_and_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "about.csv").write_text("item,words,name,more\na,soft red,A thing,1\nb,,,2\n")
    notes = Items().put_beside("items", tmp_path, Source(catalogue="about.csv"), tmp_path)
    assert notes == ["about.csv: 2 items with name and words"]
    found = open_catalogue(tmp_path, "items")
    assert found.names == {"a": "A thing"}
    assert found.words == {"a": ("soft", "red"), "b": ()}
    assert open_catalogue(tmp_path, "others").words == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("item\na\na\n", "the item 'a' stands twice"),
        ("item,words\n,x\n", "a row without an item"),
        ("id\na\n", "column 'item' is missing"),
    ],
)
def test_a_bad_catalogue_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "about.csv").write_text(lines)
    with pytest.raises(InputError, match=message):
        Items().put_beside("items", tmp_path, Source(catalogue="about.csv"), tmp_path)
    with pytest.raises(InputError, match="no such file"):
        Items().put_beside("items", tmp_path, Source(catalogue="absent.csv"), tmp_path)
