"""Interactions, a row each, as histories, a row a user."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import rows

from graftline.errors import InputError
from graftline.raw.files import raw_files, read_batches
from graftline.raw.histories import LACKS
from graftline.raw.reader import Asked, Source

LINES = (
    "user,item,day\nann,tea,2024-05-03\nbob,rye,2024-05-01\nann,rye,2024-05-01\n"
    "bob,tea,2024-05-02\nann,oil,2024-05-02\n"
)


def test_each_user_is_a_row_in_the_order_in_which_users_come(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(LINES)
    plain = rows(tmp_path, ("user", "item"), Source(user="user"), others="drop")
    assert plain == [("ann", ["tea", "rye", "oil"]), ("bob", ["rye", "tea"])]


def test_a_time_orders_what_a_user_did_and_the_user_has_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(LINES)
    found = rows(tmp_path, ("user", "item", "day"), Source(user="user", time="day"))
    assert found == [("ann", ["rye", "oil", "tea"], "2024-05-03"), ("bob", ["rye", "tea"], "2024-05-02")]


@pytest.mark.parametrize("times", [[20, 3, 100], ["20", "3", "100"], [2.5, 1.0, 30.0]])
def test_times_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path, times: list[object]) -> None:
    pq.write_table(pa.table({"user": [1, 1, 1], "item": ["b", "a", "c"], "at": times}), tmp_path / "x.parquet")
    assert rows(tmp_path, ("item",), Source(user="user", time="at"), others="drop") == [(["a", "b", "c"],)]


def test_users_are_gathered_from_all_files_but_not_from_the_catalogue(tmp_path: Path) -> None:
    for name, items in (("a.parquet", ["x", "y"]), ("b.parquet", ["z"])):
        pq.write_table(pa.table({"user": ["u"] * len(items), "item": items}), tmp_path / name)
    pq.write_table(pa.table({"item": ["x"], "words": [["soft"]]}), tmp_path / "items.parquet")
    source = Source(user="user", catalogue="items.parquet")
    assert rows(tmp_path, ("user", "item"), source) == [("u", ["x", "y", "z"])]


def test_the_catalogue_lies_in_the_raw_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "year=2024").mkdir()
    for path in (tmp_path / "year=2024/items.parquet", tmp_path / "items.parquet"):
        pq.write_table(pa.table({"user": ["u"], "item": ["x"]}), path)
    assert [part.path for part in raw_files(tmp_path, Source(catalogue="items.parquet"))] == [
        tmp_path / "year=2024/items.parquet"
    ]
    for name in ("../items.parquet", "in/items.parquet", "/etc/passwd", "..", "", "in\\items.csv"):
        with pytest.raises(ValueError, match="is no plain name"):
            Source(catalogue=name)


def test_an_interaction_that_lacks_something_is_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item\nann,tea\n,rye\nbob,\nann,oil\n")
    batch, *rest = read_batches(raw_files(tmp_path), Asked(("user", "item"), Source(user="user")))
    assert not rest
    assert batch.columns["item"].to_pylist() == [["tea", "oil"]]
    assert [(one.name, one.why) for one in batch.left_out] == [(f"row {n}", LACKS) for n in (1, 2)]


@pytest.mark.parametrize(
    ("lines", "source", "message"),
    [
        ("user,item\n", {"user": "user"}, "no rows"),
        ("user,item\n,tea\n", {"user": "user"}, "no interaction that lacks nothing"),
        (
            "user,item,day\nann,tea,1\nbob,rye\nann,oil,2,3\n",
            {"user": "user"},
            "x.csv: row 1: too few or too many cells",
        ),
        ("who,item\nann,tea\n", {"user": "user"}, "column 'user' is missing"),
        ("user,item,day\nann,tea,31/05/2024\n", {"user": "user", "time": "day"}, "no times, such as '31/05/2024'"),
    ],
)
def test_what_cannot_be_gathered_ends_in_one_line(
    tmp_path: Path, lines: str, source: dict[str, str], message: str
) -> None:
    (tmp_path / "x.csv").write_text(lines)
    with pytest.raises(InputError, match=re.escape(message)):
        rows(tmp_path, ("user", "item"), Source(**source), others="drop")


def test_a_time_without_a_user_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name source\.user too"):
        Source(time="day")
