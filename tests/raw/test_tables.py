"""Raw tables as spreadsheets, pandas and Spark leave them (graftline.raw)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.errors import InputError
from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked

COLUMNS = ("text", "label")


def rows(folder: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for batch in read_batches(raw_files(folder), Asked(COLUMNS)):
        found += zip(*(batch.columns[name].to_pylist() for name in COLUMNS), strict=True)
    return found


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_of_a_spreadsheet_is_read_by_the_separator_that_its_header_has(
    tmp_path: Path, delimiter: str, end: str
) -> None:
    lines = [delimiter.join(row) for row in (("label", "text"), ("ham", '"a; b, c"'), ("spam", "d"))]
    (tmp_path / "x.csv").write_bytes(("\ufeff" + end + end.join(lines) + end).encode())
    assert rows(tmp_path) == [("a; b, c", "ham"), ("d", "spam")]


def test_the_index_column_of_pandas_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",text,label\n0,a,ham\n")
    with pytest.raises(InputError, match=r"line 1: a first column without a name.*index=False"):
        rows(tmp_path)


def test_line_ends_of_cr_alone_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"text,label\ra,ham\rb,spam\r")
    with pytest.raises(InputError, match="line ends are CR alone; expected LF or CRLF"):
        rows(tmp_path)


def test_errors_count_the_empty_lines_before_the_header(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('\n\ntext,label\na,ham\n"b,spam\n')
    with pytest.raises(InputError, match="line 5: not CSV"):
        rows(tmp_path)


def test_a_folder_as_spark_writes_it_is_read(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    for part, values in enumerate(([{"text": "a", "label": "ham"}], [])):
        pq.write_table(pa.Table.from_pylist(values, schema), tmp_path / f"part-0000{part}.snappy.parquet")
    for marker in ("_SUCCESS", "._SUCCESS.crc", ".part-00000.snappy.parquet.crc", "_metadata"):
        (tmp_path / marker).touch()
    (tmp_path / "_temporary").mkdir()
    assert rows(tmp_path) == [("a", "ham")]


def test_a_table_is_no_marker_whatever_its_name_begins_with(tmp_path: Path) -> None:
    (tmp_path / "_old.csv").write_text("text,label\na,ham\n")
    assert rows(tmp_path) == [("a", "ham")]


def test_parts_without_rows_alone_are_refused(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    pq.write_table(pa.Table.from_pylist([], schema), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match=r"part-0\.parquet: no rows"):
        rows(tmp_path)
