"""Files that cannot be read: the message names the place and the way out, and memory stays bounded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked

COLUMNS = ["label", "image"]
HEADER = b"label,image\n"


def read(path: Path) -> list[RawBatch]:
    return list(read_batches(raw_files(path), Asked(COLUMNS)))


def table(rows: int = 3) -> pa.Table:
    return pa.table({"label": list(range(rows)), "image": [[0, 1, 2]] * rows})


CASES: dict[str, tuple[str, bytes, str]] = {
    "0 bytes": ("a.csv", b"", "an empty file (0 bytes)"),
    "0 bytes of Parquet": ("a.parquet", b"", "an empty file (0 bytes)"),
    "header only": ("a.csv", HEADER, "no rows"),
    "CSV named .parquet": ("a.parquet", HEADER + b"1,0 1 2\n", "probably CSV; expected a Parquet file"),
    "gzip named .csv": ("a.csv", b"\x1f\x8b\x08\x00", "which is gzip; expected CSV in UTF-8"),
    "UTF-16": ("a.csv", (HEADER + b"1,0 1 2\n").decode().encode("utf-16"), "which is UTF-16 text"),
    "UTF-16 without a mark": ("a.csv", HEADER.decode().encode("utf-16-le"), "line 1: a NUL byte at byte 1"),
    "latin-1": ("a.csv", HEADER + b"caf\xe9,0 1 2\n", "line 2: byte 15 (0xe9) is not UTF-8"),
    "NUL": ("a.csv", HEADER + b"1,0 \0 2\n", "line 2: a NUL byte at byte 16"),
    "header twice": ("a.csv", HEADER + b"1,0 1 2\n" + HEADER, "line 3: the header again, as a data row"),
    "repeated column": ("a.csv", b"label,image,label\n1,0,1\n", "line 1: column 'label' stands twice"),
    "missing column": ("a.csv", b"label\n1\n", "column 'image' is missing"),
    "misspelt column": ("a.csv", b"label,imgae\n1,0\n", "unknown column 'imgae'; did you mean 'image'?"),
    "no header": ("a.csv", b"1,0 1 2\n2,0 1 2\n", "column 'label' is missing"),
    "open quote": ("a.csv", HEADER + b'"1,0 1 2\n2,0\n', "not CSV (unexpected end of data)"),
    "unknown type": ("a.json", b"{}", "unknown file type '.json'"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_is_no_table_is_refused(case: str, tmp_path: Path) -> None:
    name, content, message = CASES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(tmp_path)
    assert message in str(refused.value) and name in str(refused.value) and "\n" not in str(refused.value)


def test_parquet_cut_anywhere_is_refused(tmp_path: Path) -> None:
    pq.write_table(table(500), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    cut = tmp_path / "cut.parquet"
    for length in [*range(4, 16), *range(16, len(whole), 97), len(whole) - 8, len(whole) - 4, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="truncated or damaged"):
            read(cut)


def test_a_flipped_bit_in_a_page_of_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"label": np.arange(5000), "image": [[1]] * 5000}),
        path,
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="truncated or damaged"):
        read(path)


def test_parquet_with_other_columns_or_no_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(table().append_column("more", [[1, 2, 3]]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="unknown column 'more'"):
        read(tmp_path)
    pq.write_table(table(0), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no rows"):
        read(tmp_path)


def test_text_in_parquet_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    bad = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"label": bad, "image": [[1]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="UTF8"):
        read(tmp_path)


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_line_of_100_mb_is_refused_in_bounded_memory(tmp_path: Path, quote: bytes) -> None:
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(HEADER + b"1," + quote)
        for _ in range(100):
            file.write(b"0 1 " * 250_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="line 2: longer than 8388608 bytes"):
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_an_open_quote_does_not_swallow_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER + b'1,"0\n' + b"2,0 1 2\n" * 2_000_000)
    with pytest.raises(InputError, match="field larger than field limit"):
        read(tmp_path)


def test_an_empty_folder_and_a_folder_in_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an empty folder"):
        read(tmp_path)
    (tmp_path / "more.csv").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path)


def test_files_are_read_in_the_order_of_their_names_and_rows_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 2)
    pq.write_table(table(3), tmp_path / "b.parquet")
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfimage,label\n\n0 1 2,7\n0 1 2,8\n\n0 1 2\n")
    (tmp_path / ".gitignore").write_text("")
    batches = read(tmp_path)
    assert [(batch.file.name, batch.first_row, batch.rows) for batch in batches] == [
        ("a.csv", 0, 2),
        ("a.csv", 2, 1),
        ("b.parquet", 3, 2),
        ("b.parquet", 5, 1),
    ]
    assert batches[0].columns["label"].to_pylist() == ["7", "8"]
    assert batches[1].cells.tolist() == [1] and batches[1].columns["label"].to_pylist() == [None]


def test_a_table_is_not_read_before_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER + b"1,0 1 2\n")
    (tmp_path / "b.csv").write_bytes(HEADER + b"\0")
    batches = read_batches(raw_files(tmp_path), Asked(COLUMNS))
    assert next(batches).rows == 1
