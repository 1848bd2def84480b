"""Ratings through validate: from lines, a rating each, to a row a user, and what goes to the quarantine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2] / "learning"))

import small

from graftline.jsonfile import write_json


def validated(folder: Path, columns: dict[str, Any], **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return each user's ratings by item, and the quarantine."""
    write_json({"columns": columns, **more}, folder / "e.yaml")
    params = {"validate": {"max_bad_fraction": 0.9}}
    inputs = {"in_raw": folder / "raw", "in_expectations": folder / "e.yaml", "store": folder / "store"}
    small.make("validate", params, **inputs, out_dataset=folder / "dataset")
    rows = [
        row
        for name in ("train", "val", "test")
        for row in pq.read_table(folder / "dataset" / f"{name}.parquet").to_pylist()
    ]
    rated = {row["user"]: dict(zip(row["items"], row["rating"], strict=True)) for row in rows}
    return rated, pq.read_table(folder / "dataset/quarantine.parquet").to_pylist()


def test_lines_become_users_and_the_last_rating_in_time_is_taken(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    lines = [f"u{n},i{item},{1 + (n + item) % 5},{100 * n + item}" for n in range(30) for item in range(n % 4 + 2)]
    lines += ["u3,i0,4.5,1", "u3,i1,2.5,999999", "u4,i1,,7", "u5,i0,7,9"]
    (tmp_path / "raw/x.csv").write_text("user,product,rating,at\n" + "\n".join(lines) + "\n")
    columns = {
        "items": {"type": "items", "name": "product"}, "user": {"type": "string"},
        "rating": {"type": "ratings", "min": 1, "max": 5},
    }  # fmt: skip
    source = {"user": "user", "time": "at"}
    rated, bad = validated(tmp_path, columns, source=source, others="drop")
    assert rated["u3"] == {"i0": 4.0, "i1": 2.5, "i2": 1.0, "i3": 2.0, "i4": 3.0}  # 4.5 was said before
    assert rated["u4"] == {f"i{n}": 1.0 + (4 + n) % 5 for n in range(2)}  # the line without a rating is passed over
    assert len(rated) == 29 and [line["rule"] for line in bad] == ["rating.max"]
    histogram = json.loads((tmp_path / "dataset/profile.json").read_text())["histograms"]["rating"]
    assert sum(histogram["counts"]) == sum(map(len, rated.values()))


def test_rows_whose_ratings_are_of_other_items_are_not_let_in(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    good = [{"user": f"u{n}", "items": ["a", f"b{n}"], "rating": [1.0, 2.0]} for n in range(40)]
    bad = [
        {"user": "v0", "items": ["a", "b"], "rating": [1.0]},
        {"user": "v1", "items": ["a", "a", "b"], "rating": [1.0, 2.0]},  # two items, two ratings, but not theirs
        {"user": "v2", "items": ["a", "b"], "rating": [1.0, None]},
        {"user": "v3", "items": ["a", "b"], "rating": [1.0, 0.5]},
        {"user": "v4", "items": ["a", "b"], "rating": []},
    ]
    kind = pa.schema([("user", pa.string()), ("items", pa.list_(pa.string())), ("rating", pa.list_(pa.float64()))])
    pq.write_table(pa.Table.from_pylist([*good, *bad], schema=kind), tmp_path / "raw/x.parquet")
    columns = {
        "items": {"type": "items"}, "user": {"type": "string"}, "rating": {"type": "ratings", "min": 1, "max": 5}
    }  # fmt: skip
    rated, found = validated(tmp_path, columns)
    assert set(rated) == {f"u{n}" for n in range(40)}
    rules = ["rating.length", "rating.length", "rating.finite", "rating.min", "rating.length"]
    assert [line["rule"] for line in sorted(found, key=lambda line: line["row"])] == rules
