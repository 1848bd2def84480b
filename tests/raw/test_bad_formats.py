"""Files that cannot be read: each ends in one line with the place, what was found, what was expected and a way on.

None is decoded into memory beyond a bound: the suite runs in a process whose address space is bounded, see the end.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from reading import rows

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.reader import Source

RECORDINGS = Path(__file__).parent / "recordings"
CSV = b"text,label\na,ham\nb,spam\n"
TABLE = pa.table({"text": ["a", "b"], "label": ["ham", "spam"]})


def written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


def workbook(path: Path, **sheets: list[list[object]]) -> None:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, lines in sheets.items():
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(line)
    book.save(path)


def rezipped(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a workbook whose parts are changed."""
    workbook(path, one=[["text", "label"], ["a", "ham"]])
    parts = {}
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))


def saved(raw: Path, change: Callable[[dict[str, object]], None]) -> None:
    shutil.copytree(RECORDINGS / "saved", raw, dirs_exist_ok=True)
    state = json.loads((raw / "state.json").read_text())
    change(state)
    (raw / "state.json").write_text(json.dumps(state))


def cut(path: Path, length: int, write: Callable[[Path], None]) -> None:
    write(path)
    os.truncate(path, length)


def stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as out:
        out.write_table(TABLE)


def spark(raw: Path) -> None:
    pq.write_to_dataset(pa.table({"text": ["a"], "year": [1]}), raw, partition_cols=["year"])


def two_layouts(raw: Path) -> None:
    spark(raw)
    (raw / "day=1").mkdir()
    written(raw / "day=1/a.csv", CSV)


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    # CSV and JSON Lines
    "gzip that is none": (
        lambda raw: written(raw / "a.csv.gz", CSV),
        r"a\.csv\.gz: truncated or damaged .*gzipped.*dvc pull",
    ),
    "gzip cut off": (
        lambda raw: written(raw / "a.csv.gz", gzip.compress(CSV)[:-9]),
        r"a\.csv\.gz: truncated or damaged",
    ),
    "gzip with a wrong checksum": (
        lambda raw: written(raw / "a.csv.gz", gzip.compress(CSV)[:-8] + bytes(8)),
        r"a\.csv\.gz: truncated or damaged .*CRC",
    ),
    "zstd that is none": (lambda raw: written(raw / "a.jsonl.zst", CSV), r"a\.jsonl\.zst: truncated or damaged"),
    "zstd cut off": (
        lambda raw: written(raw / "a.csv.zst", zstd(CSV * 999)[:-5]),
        r"a\.csv\.zst: truncated or damaged",
    ),
    "gzip of a Parquet file": (
        lambda raw: written(raw / "a.csv.gz", gzip.compress(b"PAR1" + CSV)),
        "which is a Parquet",
    ),
    "empty content": (
        lambda raw: written(raw / "a.csv.gz", gzip.compress(b"")),
        r"no header line; expected the columns text",
    ),
    "two columns without a name": (
        lambda raw: written(raw / "a.csv", b"text,,label,\na,,b,\n"),
        "column 2 has no name",
    ),
    "an index column": (lambda raw: written(raw / "a.csv", b",text,label\n0,a,ham\n"), "index.*others: drop.*name: ''"),
    "semicolons within commas": (
        lambda raw: written(raw / "a.csv", b"text;label;x\na;b;c\n"),
        "column 'text' is missing",
    ),
    "a folder of tables": (lambda raw: (raw / "more").mkdir(), "more: not a regular file"),
    "a dictionary in JSON for text": (
        lambda raw: written(raw / "a.jsonl", b'{"text": {"de": "a"}, "label": 1}\n{"text": "b", "label": 2}\n'),
        r"a\.jsonl: column 'text': no one type in rows 0 to 1",
    ),
    "JSON that is an array": (lambda raw: written(raw / "a.json", b"[{}]"), r"unknown file type '\.json'.*jq -c"),
    "a workbook of before 2007": (
        lambda raw: written(raw / "a.xls", b"\xd0\xcf\x11\xe0"),
        r"'\.xls'.*save it as \.xlsx",
    ),
    "an archive": (lambda raw: written(raw / "a.zip", b"PK\x03\x04"), r"'\.zip'.*unpack it"),
    "a pickle": (lambda raw: written(raw / "a.pkl", b"\x80\x04."), r"'\.pkl'.*nothing is unpickled"),
    # Workbooks
    "a workbook that is none": (lambda raw: written(raw / "a.xlsx", CSV), r"a\.xlsx: truncated or damaged .*zip"),
    "an encrypted workbook": (
        lambda raw: written(raw / "a.xlsx", b"\xd0\xcf\x11\xe0" + bytes(99)),
        "an encrypted workbook",
    ),
    "a workbook cut off": (
        lambda raw: cut(raw / "a.xlsx", 3000, lambda path: workbook(path, one=[["text"]])),
        r"a\.xlsx: truncated or damaged",
    ),
    "a workbook without parts": (
        lambda raw: zipfile.ZipFile(raw / "a.xlsx", "w").close(),
        r"a\.xlsx: truncated or damaged",
    ),
    "a sheet that is no XML": (
        lambda raw: rezipped(raw / "a.xlsx", lambda name, part: part[:-90] if "sheet1" in name else part),
        r"a\.xlsx: truncated or damaged .*sheet 'one' after row",
    ),
    "several sheets": (
        lambda raw: workbook(raw / "a.xlsx", one=[], two=[]),
        "several sheets; expected one of 'one', 'two'",
    ),
    "an empty sheet": (lambda raw: workbook(raw / "a.xlsx", one=[]), "an empty sheet"),
    "a sheet with other columns": (
        lambda raw: workbook(raw / "a.xlsx", one=[["text", "lable"], ["a", 1]]),
        "the first row: column 'label' is missing; unknown column 'lable'; did you mean 'label'",
    ),
    # Arrow
    "Feather that is none": (lambda raw: written(raw / "a.feather", CSV), r"a\.feather: truncated or damaged"),
    "Feather of version 1": (
        lambda raw: feather.write_feather(TABLE, raw / "a.feather", version=1),
        "Feather of version 1; expected version 2",
    ),
    "Feather cut off": (
        lambda raw: cut(raw / "a.feather", 700, lambda path: feather.write_feather(TABLE, path)),
        r"a\.feather: truncated or damaged \(700 bytes; its end is missing",
    ),
    "a stream cut off": (lambda raw: cut(raw / "a.arrow", 300, stream), r"a\.arrow: truncated or damaged"),
    "a stream of a few bytes": (lambda raw: written(raw / "a.arrow", bytes(4)), r"a\.arrow: truncated or damaged"),
    "columns of Arrow that are others": (
        lambda raw: feather.write_feather(TABLE.rename_columns(["text", "class"]), raw / "a.feather"),
        "column 'label' is missing; unknown column 'class'",
    ),
    # Saved data sets
    "a state without files": (
        lambda raw: saved(raw, lambda state: state.pop("_data_files")),
        r"state\.json: not as save_to_disk",
    ),
    "a state that names a file outside": (
        lambda raw: saved(raw, lambda state: state.update(_data_files=[{"filename": "../x.arrow"}])),
        r"'\.\./x\.arrow' is no name of a file in it",
    ),
    **{
        f"splits that are the folder {name!r}": (
            lambda raw, name=name: written(raw / "dataset_dict.json", json.dumps({"splits": [name]}).encode()),
            f"{name!r} is no name of a file in it",
        )
        for name in ("..", "")
    },
    "a state that names a file that is not there": (
        lambda raw: saved(raw, lambda state: state.update(_data_files=[{"filename": "x.arrow"}])),
        r"x\.arrow: no such file, which state\.json names",
    ),
    "a state that is no JSON": (lambda raw: written(raw / "state.json", b"{"), r"state\.json: not as save_to_disk"),
    "splits that are not there": (
        lambda raw: written(raw / "dataset_dict.json", b'{"splits": ["train"]}'),
        r"train/state\.json: not as save_to_disk writes it \(FileNotFoundError",
    ),
    # Folders
    "partitions that the contract does not name": (spark, "unknown column 'year'"),
    "partitions of two layouts": (two_layouts, "in folders of the columns year; expected day"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read_ends_in_one_line(case: str, tmp_path: Path) -> None:
    make, message = CASES[case]
    make(tmp_path)
    with pytest.raises(InputError, match=message) as refused:
        rows(tmp_path)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (CSV + "é,ham\n".encode("cp1252"), "utf-8", r"line 4: byte 24 \(0xe9\) is not UTF-8.*encoding: cp1252"),
        (CSV + "é,ham\n".encode(), "ascii", r"line 4: byte 24 \(0xc3\) is not ascii"),
        (CSV.decode().encode("utf-16") + b"\x00\xd8", "utf-16", "line 4 or soon after: .* is not utf-16"),
        (CSV.decode().encode("utf-16"), "utf-8", "UTF-16 text.*encoding: utf-16"),
        (CSV.replace(b"b", b"\0"), "cp1252", "line 1: a NUL byte at byte 7"),
    ],
)
def test_text_in_another_encoding_than_is_said_is_refused_at_its_byte(
    tmp_path: Path, content: bytes, encoding: str, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        rows(tmp_path, source=Source(encoding=encoding))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"encoding": "klingon"}, "unknown encoding 'klingon'"),
        ({"encoding": "base64"}, "base64"),
        ({"encoding": "unicode_escape"}, "no encoding of files"),
        ({"delimiter": ", "}, "delimiter"),
        ({"delimiter": "\n"}, "delimiter"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(source: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(**source)


def test_a_format_that_is_not_known_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    with pytest.raises(InputError, match=r"source\.format: unknown format 'csw'; did you mean 'csv'"):
        rows(tmp_path, source=Source(format="csw"))


def test_a_batch_of_arrow_that_decompresses_to_more_than_a_bound_is_refused_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"text": ["x" * 1000] * 1000, "label": pa.array(["a"] * 1000).dictionary_encode()})
    for compression in ("lz4", "zstd"):
        feather.write_feather(table, tmp_path / f"{compression}.feather", compression=compression)
    assert len(rows(tmp_path)) == 2000
    monkeypatch.setattr(limits, "MAX_BATCH", 500_000)
    with pytest.raises(InputError, match=r"decompresses to 10\d+ bytes; expected at most 500000; .*chunksize"):
        rows(tmp_path)


BOMBS = r"""
import re, sys
from pathlib import Path
from graftline.errors import InputError
from graftline.raw.files import look, raw_files, read_batches
from graftline.raw.reader import Asked
folder = Path(sys.argv[1])
for path in sorted(folder.iterdir()):
    for reading in (lambda: read_batches(raw_files(path), Asked(["text", "label"])), lambda: [look(path)]):
        try:
            for part in reading():
                del part
            print(path.name, "read")
        except InputError as error:
            print(path.name, error.found)
peak = Path('/proc/self/status').read_text(encoding='utf-8')  # ru_maxrss would count who started this, too
print(int(re.search(r'VmHWM:\s+(\d+)', peak)[1]) // 1024)
"""


def gzipped(first: bytes, again: bytes, times: int) -> bytes:
    """Return a gzip file of `first` and then of `again`, many times, which is compressed once (RFC 1952)."""
    packed = zlib.compressobj(9, wbits=-15)
    parts = [packed.compress(data) + packed.flush(zlib.Z_FULL_FLUSH) for data in (first, again)]
    check = zlib.crc32(first)
    for _ in range(times):
        check = zlib.crc32(again, check)
    size = len(first) + times * len(again)
    return gzip.compress(b"")[:10] + parts[0] + parts[1] * times + b"\x03\0" + struct.pack("<II", check, size)


def test_bombs_are_refused_or_read_in_bounded_memory(tmp_path: Path) -> None:
    """Each would be 1 to 2 GB if it were decoded at once; the process may have 3 GB of address space."""
    raw = tmp_path / "raw"
    raw.mkdir()
    line = b"a" * (1 << 20) + b"\n"
    (raw / "a.csv.gz").write_bytes(gzipped(CSV, line, 400))
    with pa.CompressedOutputStream(str(raw / "b.jsonl.zst"), "zstd") as out:
        for _ in range(400):
            out.write(line[:-1])
    workbook(raw / "c.xlsx", one=[["text", "label"], ["a", "ham"]])
    with zipfile.ZipFile(raw / "c.xlsx", "a", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/media/x", "w") as part:
        for _ in range(400):
            part.write(line)
    (raw / "d.csv").write_bytes(CSV + (b"," * (1 << 18) + b"\n") * 20)
    repeated = pa.DictionaryArray.from_arrays(np.zeros(2000, np.int32), ["x" * 1_000_000])
    pq.write_table(pa.table({"text": repeated, "label": np.zeros(2000)}), raw / "e.parquet", store_schema=False)
    overstated = re.compile(rb'<dimension ref="[^"]*"')
    rezipped(raw / "f.xlsx", lambda _, part: overstated.sub(b'<dimension ref="A1:XFD1048576"', part))
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({3 << 30}, {3 << 30}))\n"
    done = subprocess.run(
        [sys.executable, "-c", limited + BOMBS, str(raw)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.splitlines()
    found = {line.split(" ")[0]: line.partition(" ")[2] for line in said[::2]}
    assert "decompress to more than" in found["a.csv.gz"]
    assert "longer than" in found["b.jsonl.zst"] and "unpack to" in found["c.xlsx"]
    assert found["d.csv"] == found["e.parquet"] == found["f.xlsx"] == "read"
    assert int(peak) < 700
