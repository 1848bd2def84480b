"""Ratings as a kind of label: what is read beside items, what is bad, and that none moves to another item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.values.contract import Contract, load_contract
from graftline.values.items import Items
from graftline.values.ratings import RatingLabel, Ratings

COLUMNS = {"items": {"type": "items"}, "rating": {"type": "ratings", "min": 1, "max": 5, "nullable": True}}


def batch(items: list[Any], ratings: Any, *, is_text: bool = False) -> RawBatch:
    columns = {"items": pa.array(items), "rating": pa.array(ratings)}
    return RawBatch(Path("x"), 0, columns, is_text, np.full(len(items), 2, np.int64))


def read(found: RawBatch, **rules: Any) -> tuple[list[Any], list[Any], dict[str, Any], dict[str, int]]:
    """Return items and ratings of all rows, and the facts and changes of the ratings."""
    columns = {"items": Items(), "rating": Ratings(**rules)}
    both = {name: column.read_beside(found, name, columns) for name, column in columns.items()}
    every = np.ones(found.rows, bool)
    items, ratings = (both[name].take(every).to_pylist() for name in columns)
    return items, ratings, both["rating"].facts, dict(both["rating"].changes)


def test_ratings_are_numbers_of_any_kind_and_in_csv_words() -> None:
    items = [["a", "b"], ["c"]]
    for ratings in ([[1, 2], [5]], [[1.0, 2.0], [5.0]]):
        assert read(batch(items, ratings))[1] == [[1.0, 2.0], [5.0]]
    assert read(batch(["a  b", "c"], ["1 2.0", " 5e0 "], is_text=True))[1] == [[1.0, 2.0], [5.0]]
    assert read(batch(items, [["1", "2"], ["5"]], is_text=True))[1] == [[1.0, 2.0], [5.0]]  # lines, gathered
    for wrong in (["1 2", "5"], [["1", "2"], ["5"]], [[True, False], [True]], [1.0, 2.0]):
        with pytest.raises(InputError, match="a list of numbers"):
            read(batch(items, wrong))


def test_of_an_item_that_is_rated_again_the_last_rating_is_taken_and_no_other_one_moves() -> None:
    items = [["a", "b", "a", "c", "b", "a"], ["b", "a"], ["z", "z"], ["q"]]
    ratings = [[1, 2, 3, 4, 5, 1.5], [2, 1], [3, 4], [2]]
    found, told, _, changes = read(batch(items, ratings))
    assert found == [["a", "b", "c"], ["b", "a"], ["z"], ["q"]]
    assert told == [[1.5, 5, 4], [2, 1], [4], [2]]
    assert changes == {"rated_again": 4}


def test_other_histories_beside_are_not_taken_for_the_rated_ones() -> None:
    columns = {"seen": Items(role="metadata"), "items": Items(), "rating": Ratings()}
    lists = {"seen": [["x", "y", "y"]], "items": [["a", "b", "a"]], "rating": [[1.0, 2.0, 3.0]]}
    raw = RawBatch(Path("x"), 0, {name: pa.array(of) for name, of in lists.items()}, False, np.full(1, 3, np.int64))
    found = columns["rating"].read_beside(raw, "rating", columns).take(np.ones(1, bool))
    assert found.to_pylist() == [[3.0, 2.0]]  # of a and b


def test_any_history_keeps_for_each_item_what_was_said_of_it_last() -> None:
    draw = np.random.default_rng(0)
    items = [[f"i{n}" for n in draw.integers(0, 6, draw.integers(1, 9))] for _ in range(300)]
    ratings = [draw.integers(1, 6, len(history)).astype(float).tolist() for history in items]
    uneven = set(range(0, 300, 7))
    given: list[Any] = [row[:-1] if place in uneven else row for place, row in enumerate(ratings)]
    given[4] = None
    found, told, facts, _ = read(batch(items, given))
    for place, history in enumerate(items):
        if place in uneven or place == 4:
            continue
        assert dict(zip(found[place], told[place], strict=True)) == dict(zip(history, ratings[place], strict=True))
    assert np.flatnonzero(facts["more_than_items"] == -1).tolist() == sorted(uneven)
    assert told[4] is None and np.isnan(facts["given"][4]) and np.isnan(facts["more_than_items"][4])


def test_what_is_no_rating_is_counted_also_where_a_later_one_stands() -> None:
    items = [["a", "b"], ["a", "b"], ["a", "a"], ["a", "b"]]
    facts = read(batch(items, ["1 x", "nan inf", "x 2", "-3 9"], is_text=True))[2]
    assert facts["not_finite"].tolist() == [1, 2, 1, 0]
    assert (facts["least"][3], facts["largest"][3]) == (-3, 9)
    assert read(batch([["a", "b"]], [[1.0, None]]))[2]["not_finite"].tolist() == [1]
    assert np.isnan(facts["least"][1])


def test_equal_ratings_have_equal_bytes_and_none_has_its_own() -> None:
    cells = Ratings().cells(pa.array([[1.0, 0.0], [1.0, -0.0], [0.0, 1.0], None, []], pa.list_(pa.float64())))
    assert cells[0] == cells[1] and len(set(cells)) == 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rating": COLUMNS["rating"]}, "no column with the role feature"),
        ({"text": {"type": "text"}, "rating": {"type": "ratings"}}, "one column of type items"),
        ({**COLUMNS, "rating": {"type": "ratings", "role": "metadata"}}, "one column of type items"),
        ({**COLUMNS, "rating": {"type": "ratings", "min": 5, "max": 5}}, "min 5 is not below max 5"),
    ],
)
def test_a_contract_that_cannot_be_meant_is_refused(tmp_path: Path, columns: Any, message: str) -> None:
    (tmp_path / "e.yaml").write_text(json.dumps({"columns": columns}))
    with pytest.raises(InputError, match=message):
        load_contract(tmp_path / "e.yaml")


def test_the_dataset_knows_its_ratings() -> None:
    schema = Contract.model_validate({"columns": {"items": {"type": "items"}, "r": {"type": "ratings"}}})
    label = schema.schema_of_dataset().label_column
    assert isinstance(label, RatingLabel)
    column = pa.chunked_array([pa.array([[1.0, 2.0], [3.0]])])
    assert [row.tolist() for row in label.values(column)] == [[1.0, 2.0], [3.0]]
    for wrong in ([[1.0], None], [[1.0], [None]], [[float("nan")]]):
        with pytest.raises(ValueError, match="lacks a rating"):
            label.values(pa.chunked_array([pa.array(wrong, pa.list_(pa.float64()))]))
    assert [len(row) for row in label.invented(pa.array([["a", "b"], ["c"]])).to_pylist()] == [2, 1]
    assert label.croissant()["isArray"]
