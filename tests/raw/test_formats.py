"""Files as their own writers leave them: pandas, pyarrow, openpyxl, Spark's layout, Hugging Face datasets."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from reading import rows

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked, Source

RECORDINGS = Path(__file__).parent / "recordings"
ROWS = [("a; b, c", "ham"), ('line\nbreak, "q"', "spam"), ("Grüße", "ham")]


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["text", "label"])


@pytest.mark.parametrize(
    ("name", "how", "source"),
    [
        ("x.csv", {}, {}),
        ("x.csv", {"sep": ";", "encoding": "utf-8-sig", "lineterminator": "\r\n"}, {}),
        ("x.tsv", {"sep": "\t"}, {}),
        ("x.csv", {"sep": "|"}, {"delimiter": "|"}),
        ("x.csv", {"encoding": "cp1252"}, {"encoding": "cp1252"}),
        ("x.csv", {"encoding": "utf-16"}, {"encoding": "utf-16"}),
        ("x.csv", {"encoding": "utf-16-le"}, {"encoding": "utf-16-le"}),
        ("x.csv", {"quotechar": "'"}, {"quote": "'"}),
        ("x.csv", {"doublequote": False, "escapechar": "\\"}, {"escape": "\\"}),
        ("x.csv", {"header": False}, {"header": ["text", "label"]}),
        ("x.csv.gz", {}, {}),
        ("x.tsv.gz", {"sep": "\t"}, {}),
        ("x.dat", {"sep": ";"}, {"format": "csv"}),
    ],
)
def test_csv_is_read_as_its_contract_says_that_it_is_written(
    tmp_path: Path, name: str, how: dict[str, Any], source: dict[str, Any]
) -> None:
    frame().to_csv(tmp_path / name, index=False, **how)
    assert rows(tmp_path, source=Source(**source)) == ROWS


def test_the_first_line_by_which_excel_is_told_the_separator_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('sep=|\n"text"|label\na;b|ham\n')
    assert rows(tmp_path) == [("a;b", "ham")]


def test_an_index_without_a_name_is_dropped_or_named(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "x.csv")
    assert rows(tmp_path, others="drop") == ROWS
    (batch,) = read_batches(raw_files(tmp_path), Asked(["text"], others="drop"))
    assert batch.dropped == ("", "label") and batch.cells.tolist() == [1, 1, 1]
    assert rows(tmp_path, ["id", "label"], others="drop", found_as={"id": ""})[1] == ("1", "spam")


def test_zstd_and_gzip_of_json_lines_are_read(tmp_path: Path) -> None:
    frame().to_json(tmp_path / "a.jsonl.gz", orient="records", lines=True)
    with pa.CompressedOutputStream(str(tmp_path / "b.jsonl.zst"), "zstd") as out:
        out.write(frame().to_json(orient="records", lines=True).encode())
    assert rows(tmp_path) == ROWS * 2


def test_values_that_look_like_others_stay_what_they_are(tmp_path: Path) -> None:
    words = ["NA", "null", "True", "1e5", "007", "nan", "-", "1_000"]
    table = pd.DataFrame({"text": words, "label": words})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_excel(tmp_path / "b.xlsx", index=False)
    table.to_json(tmp_path / "c.jsonl", orient="records", lines=True)
    assert rows(tmp_path) == [(word, word) for word in words] * 3


def test_a_sheet_is_read_as_csv_of_it_would_be(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["text", "label", "none", None])
    for value in (3, 2.5, 3.0, True, datetime.datetime(2024, 5, 1), datetime.datetime(2024, 5, 1, 12), "x\ny", 1e20):
        sheet.append([value, "ham"])
    sheet.append([None, None])
    sheet.append(["a", "b", "c", "too much"])
    book.save(tmp_path / "x.xlsx")
    batches = list(read_batches(raw_files(tmp_path), Asked(["text", "label", "none"])))
    assert batches[0].columns["text"].to_pylist() == [
        *("3", "2.5", "3", "TRUE", "2024-05-01", "2024-05-01T12:00:00", "x\ny", "1e+20", None)
    ]
    assert batches[0].is_text and batches[0].cells.tolist() == [3] * 8 + [4]
    assert batches[0].columns["none"].null_count == 9


def test_of_several_sheets_the_contract_names_one(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "x.xlsx") as book:
        pd.DataFrame({"other": [1]}).to_excel(book, sheet_name="notes", index=False)
        frame().to_excel(book, sheet_name="data", index=False)
    with pytest.raises(InputError, match=r"several sheets; expected one of 'notes', 'data'; .*source: {sheet: NAME}"):
        rows(tmp_path)
    assert rows(tmp_path, source=Source(sheet="data")) == ROWS


def test_columns_of_every_width_and_encoding_come_as_plain_values(tmp_path: Path) -> None:
    text = pa.array([text for text, _ in ROWS])
    label = pa.array([label for _, label in ROWS])
    table = pa.table(
        {
            "large": text.cast(pa.large_string()),
            "view": text.cast(pa.string_view()),
            "dictionary": label.dictionary_encode(),
            "list": pa.array([["a"], [], None], pa.large_list(pa.string())),
            "decimal": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")]),
            "meta": pa.array([{"language": "de", "id": 1}, None, {"language": None, "id": 3}]),
            "boolean": [True, False, None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "b.feather", chunksize=2)
    with pa.ipc.new_stream(tmp_path / "c.arrow", table.schema) as out:
        out.write_table(table)
    columns = ["large", "view", "dictionary", "list", "decimal", "language", "boolean"]
    found = list(
        read_batches(raw_files(tmp_path), Asked(columns, others="drop", found_as={"language": "meta.language"}))
    )
    assert {batch.file.name for batch in found} == {"a.parquet", "b.feather", "c.arrow"}
    assert {name for batch in found for name in batch.dropped} == {"meta.id"}
    for name in columns:
        expected = table["meta"].to_pylist() if name == "language" else table[name].to_pylist()
        if name == "language":
            expected = ["de", None, None]
        assert [value for batch in found for value in batch.columns[name].to_pylist()] == expected * 3
        assert not any(pa.types.is_dictionary(batch.columns[name].type) for batch in found)


def test_a_field_that_is_not_asked_for_is_a_column_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"text": "a", "meta": {"language": "de", "id": 1}}\n{"text": "b", "meta": null}\n'
    )
    asked = {"columns": ["text", "language"], "found_as": {"language": "meta.language"}}
    with pytest.raises(InputError, match=r"line 1: unknown column 'meta.id'"):
        rows(tmp_path, **asked)
    assert rows(tmp_path, others="drop", **asked) == [("a", "de"), ("b", None)]


def test_folders_that_spark_partitions_by_are_columns(tmp_path: Path) -> None:
    table = pa.table({"text": list("abcd"), "year": [2023, 2023, 2024, None], "label": ["a b", "c", "c", "c"]})
    pq.write_to_dataset(table, tmp_path, partition_cols=["year", "label"])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "year=2023" / ".part.crc").write_bytes(b"crc")
    found = rows(tmp_path, ["text", "year", "label"])
    assert sorted(found) == [("a", 2023, "a b"), ("b", 2023, "c"), ("c", 2024, "c"), ("d", None, "c")]
    with pytest.raises(InputError, match=r"unknown column 'year'"):
        rows(tmp_path)
    assert sorted(rows(tmp_path, others="drop")) == [(text, label) for text, _, label in sorted(found)]


def test_folders_of_one_layout_only(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "year=2024").mkdir()
    frame().to_csv(tmp_path / "year=2024" / "x.csv", index=False)
    with pytest.raises(InputError, match=r"in folders of the columns year; expected \(none\)"):
        rows(tmp_path)


def test_a_folder_that_hugging_face_datasets_saved_is_read(tmp_path: Path) -> None:
    expected = [(f"words {number}", number % 2) for number in range(6)]
    assert rows(RECORDINGS / "saved") == expected
    columns = ["text", "label", "part"]
    found = rows(RECORDINGS / "saved_splits", columns, found_as={"part": "split"})
    assert found == [(*row, "train") for row in expected] + [(*row, "test") for row in expected[:2]]
    with pytest.raises(InputError, match="unknown column 'split'"):
        rows(RECORDINGS / "saved_splits")
    assert len(rows(RECORDINGS / "saved_splits", others="drop")) == 8


def test_long_values_behind_short_indices_are_decoded_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_BYTES", 1 << 20)
    values = pa.DictionaryArray.from_arrays(np.zeros(2000, np.int32), ["x" * 125_000])
    table = pa.table({"text": values, "label": np.arange(2000)})
    pq.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "b.feather")
    pq.write_table(table, tmp_path / "c.parquet", store_schema=False)
    assert pq.read_schema(tmp_path / "c.parquet").field("text").type == pa.string()
    batches = read_batches(raw_files(tmp_path), Asked(["text", "label"]))
    sizes = [(batch.rows, batch.columns["text"].nbytes) for batch in batches]
    assert sum(count for count, _ in sizes) == 6000
    assert max(size for _, size in sizes) < 2 * limits.BATCH_BYTES
