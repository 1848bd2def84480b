"""Raw data that validate refuses: files that are no table, tables that break the contract, leaks."""

from __future__ import annotations

import copy as copies
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import CONTRACT, Call, call

MEBI = 1 << 20
Make = Callable[[Path, pa.Table], object]


@dataclass(frozen=True)
class Case:
    """A way to fill the raw folder, and what the refusal says."""

    make: Make
    says: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    """Changes to the contract's columns."""
    contract: dict[str, Any] = field(default_factory=dict)
    """More keys of the contract."""
    params: dict[str, Any] = field(default_factory=dict)


def command(folder: Path, case: Case, table: pa.Table) -> Call:
    """Write the case's files below `folder` and return the call of validate on them."""
    raw = folder / "raw"
    raw.mkdir()
    case.make(raw, table)
    contract = copies.deepcopy(CONTRACT) | case.contract
    for name, changes in case.columns.items():
        contract["columns"].setdefault(name, {}).update(changes)
    expectations = folder / "expectations.yaml"
    expectations.write_text(json.dumps(contract))
    document = json.dumps({"task": "digits", "validate": case.params})
    store = folder / "store"
    return call(
        "validate",
        document,
        folder / "outputs" / "dataset",
        "--store",
        str(store),
        inputs=(store,),
        raw=raw,
        expectations=expectations,
    )


# Ways to make files


def data(name: str, content: bytes) -> Make:
    return lambda raw, _: (raw / name).write_bytes(content)


def parquet(change: Callable[[pa.Table], pa.Table]) -> Make:
    return lambda raw, table: pq.write_table(change(table), raw / "part.parquet")


def csv_rows(table: pa.Table, count: int = 20) -> bytes:
    rows = table.slice(0, count).to_pylist()
    return b"".join(f"{' '.join(map(str, row['image']))},{row['label']}\n".encode() for row in rows)


def csv(before: bytes = b"", after: bytes = b"", header: bytes = b"image,label\n", name: str = "part.csv") -> Make:
    return lambda raw, table: (raw / name).write_bytes(header + before + csv_rows(table) + after)


def cut(place: Callable[[bytes], int]) -> Make:
    def make(raw: Path, table: pa.Table) -> None:
        pq.write_table(table, raw / "part.parquet")
        whole = (raw / "part.parquet").read_bytes()
        (raw / "part.parquet").write_bytes(whole[: place(whole)])

    return make


def in_footer(whole: bytes) -> int:
    """Return a place in the footer: its length stands in the 4 bytes before the last 4."""
    return len(whole) - int.from_bytes(whole[-8:-4], "little") // 2


def flip(raw: Path, table: pa.Table) -> None:
    pq.write_table(table, raw / "part.parquet", write_page_checksum=True)
    content = bytearray((raw / "part.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (raw / "part.parquet").write_bytes(content)


def utf_16(raw: Path, table: pa.Table) -> None:
    (raw / "part.csv").write_bytes((b"image,label\n" + csv_rows(table)).decode().encode("utf-16"))


def folder_inside(raw: Path, table: pa.Table) -> None:
    pq.write_table(table, raw / "part.parquet")
    (raw / "more.parquet").mkdir()


def dangling_link(raw: Path, table: pa.Table) -> None:
    (raw / "part.parquet").symlink_to(raw / "nowhere.parquet")


def with_labels(change: Callable[[np.ndarray], Any]) -> Make:
    return parquet(lambda table: table.set_column(1, "label", [change(table["label"].to_numpy().copy())]))


def with_pixels(change: Callable[[np.ndarray], Any], kind: str) -> Make:
    """Change pixels, (600, 784) of the type `kind`."""

    def of(table: pa.Table) -> pa.Table:
        flat = table["image"].combine_chunks().flatten().to_numpy().astype(kind).reshape(-1, 784)
        change(flat)
        images = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), 784)
        return table.set_column(0, "image", images)

    return parquet(of)


def put(rows: Any, value: float) -> Callable[[np.ndarray], None]:
    def change(pixels: np.ndarray) -> None:
        pixels[rows, 3] = value

    return change


def planted(raw: Path, table: pa.Table) -> None:
    """Put row 3, which is in test, into train once more."""
    names = ("test", "val", "train", "train")
    labels = [names[row // 10 % 4] for row in range(table.num_rows)]  # ten rows are one of each class
    table = table.append_column("part", [pa.array(labels)])
    again = table.slice(3, 1).set_column(2, "part", [pa.array(["train"])])
    pq.write_table(pa.concat_tables([table, again]), raw / "part.parquet")


def nearly_planted(raw: Path, table: pa.Table) -> None:
    """Put row 3 in again with two pixels changed by 1: another digest, so perhaps another split."""
    parts = [table]
    for shift in range(8):
        pixels = np.array(table["image"][3].as_py(), np.uint8)
        pixels[shift], pixels[-1 - shift] = 1, 1
        image = pa.FixedSizeListArray.from_arrays(pa.array(pixels), 784)
        parts.append(pa.table({"image": image, "label": table["label"].slice(3, 1)}, schema=table.schema))
    pq.write_table(pa.concat_tables(parts), raw / "part.parquet")


def with_weights(value: float) -> Make:
    def of(table: pa.Table) -> pa.Table:
        weights = np.linspace(0, 1, table.num_rows)
        weights[::2] = value
        return table.append_column("weight", [pa.array(weights)])

    return parquet(of)


DAMAGED = ("part.parquet: truncated or damaged", "expected a whole Parquet file", "fetch it again")
FLOAT_IMAGE = {"image": {"dtype": "float32", "min": 0, "max": 255}}
FLOAT_COLUMN = {"weight": {"type": "float"}}
SPLIT_COLUMN = {"part": {"type": "string", "role": "split"}}

CASES = {
    "Parquet of 0 bytes": Case(data("part.parquet", b""), ("part.parquet: an empty file (0 bytes)", "fetch it again")),
    "Parquet cut after 4 bytes": Case(cut(lambda _: 4), (*DAMAGED, "(4 bytes;")),
    "Parquet cut in the middle": Case(cut(lambda whole: len(whole) // 2), DAMAGED),
    "Parquet cut in its footer": Case(cut(in_footer), DAMAGED),
    "Parquet without its last byte": Case(cut(lambda whole: len(whole) - 1), DAMAGED),
    "a flipped bit in a page of Parquet": Case(flip, DAMAGED),
    "CSV renamed to Parquet": Case(
        csv(name="part.parquet"), ("part.parquet: starts with", "probably CSV", "PAR1", "convert it")
    ),
    "Parquet renamed to CSV": Case(
        lambda raw, table: pq.write_table(table, raw / "part.csv"),
        ("part.csv", "which is a Parquet file", "right ending"),
    ),
    "UTF-16": Case(utf_16, ("part.csv", "which is UTF-16 text", "expected CSV in UTF-8", "convert it")),
    "latin-1": Case(csv(after=b"caf\xe9,1\n"), ("part.csv: line 22: byte", "(0xe9) is not UTF-8", "iconv")),
    "a NUL byte": Case(csv(before=b"0 \0 1,1\n"), ("part.csv: line 2: a NUL byte at byte 14", "remove it")),
    "a column named twice": Case(
        csv(header=b"image,label,label\n"), ("part.csv: line 1", "column 'label' stands twice")
    ),
    "the header again between rows": Case(
        csv(after=b"image,label\n"), ("part.csv: line 22: the header again", "delete the line")
    ),
    "a missing column": Case(
        parquet(lambda t: t.drop(["label"])), ("part.parquet: column 'label' is missing", "image, label")
    ),
    "an extra column": Case(
        parquet(lambda t: t.append_column("labell", t["label"])),
        ("part.parquet: unknown column 'labell'; did you mean 'label'?", "expected the columns image, label"),
    ),
    "text where a number belongs": Case(
        with_labels(lambda labels: labels.astype(str)),
        ("part.parquet: column 'label': type string; expected integer (int64)", "convert the column"),
    ),
    "one number where an image belongs": Case(
        parquet(lambda t: t.set_column(0, "image", t["label"])),
        ("part.parquet: column 'image': type int64; expected pictures (bytes of JPEG",),
    ),
    "halves in an integer column": Case(
        with_labels(lambda labels: labels + 0.5), ("600 of 600 rows", "label.type", "rows 0, 1, 2", "correct the rows")
    ),
    "NaN in a float image": Case(
        with_pixels(put([7, 9], np.nan), "float32"),
        ("2 of 600 rows", "image.finite in 2 (rows 7, 9)", "at most 0.00%"),
        FLOAT_IMAGE,
        params={"max_bad_fraction": 0},
    ),
    "infinity in a float column": Case(
        with_weights(np.inf), ("300 of 600 rows", "weight.finite in 300 (rows 0, 2, 4", "at most 1.00%"), FLOAT_COLUMN
    ),
    "minus infinity in a float image": Case(
        with_pixels(put([0], -np.inf), "float64"),
        ("image.finite in 1 (rows 0)",),
        FLOAT_IMAGE,
        params={"max_bad_fraction": 0},
    ),
    "labels out of range": Case(
        with_labels(lambda labels: labels + 5), ("300 of 600 rows", "label.classes", "rows 5, 6, 7", "correct the rows")
    ),
    "pixels above the range": Case(
        with_pixels(put(slice(20), 256), "int16"), ("20 of 600 rows", "image.max in 20 (rows 0, 1, 2, 3, 4, ...)")
    ),
    "images of another size": Case(
        parquet(lambda t: t.set_column(0, "image", [[pixels[:783] for pixels in t["image"].to_pylist()]])),
        ("600 of 600 rows", "image.length"),
    ),
    "a row with too many cells": Case(
        csv(after=b"1 2,3,4\n"), ("1 of 21 rows", "row.cells in 1 (rows 20)"), params={"max_bad_fraction": 0.01}
    ),
    "CSV of 0 bytes": Case(data("part.csv", b""), ("part.csv: an empty file (0 bytes)", "delete it")),
    "CSV with a header only": Case(data("part.csv", b"image,label\n"), ("part.csv: no rows; expected at least one",)),
    "Parquet of zero rows": Case(parquet(lambda t: t.slice(0, 0)), ("part.parquet: no rows; expected at least one",)),
    "an empty folder": Case(
        lambda raw, _: None, ("raw: an empty folder", "at least one .parquet", "put the raw data there")
    ),
    "an unknown file type": Case(
        data("notes.docx", b"PK\x03\x04"), ("notes.docx: unknown file type '.docx'", "convert it")
    ),
    "a folder among the files": Case(folder_inside, ("more.parquet: not a regular file", "move it away")),
    "a link to nowhere": Case(dangling_link, ("part.parquet: not a regular file", "move it away")),
    "all rows quarantined": Case(
        with_pixels(put(slice(None), -1), "int16"), ("600 of 600 rows", "one good row"), params={"max_bad_fraction": 1}
    ),
    "one class only": Case(
        with_labels(lambda labels: labels * 0),
        ("class 1 has no row in train (0 rows in all)", "bring more rows of it, an own split"),
    ),
    "a class out of balance": Case(
        parquet(lambda t: t.slice(0, 100)),
        ("class 0 has 10.00% of the labelled rows",),
        {"label": {"balance": {"min_share": 0.11}}},
    ),
    "too few rows": Case(parquet(lambda t: t), ("raw: 600 rows", "601"), contract={"min_rows": 601}),
    "a test row planted in train": Case(
        planted,
        ("equal features in two splits, 1 times", "row 3 (test) and row 600 (train", "remove one of each"),
        SPLIT_COLUMN,
    ),
    "a near-duplicate in another split": Case(
        nearly_planted,
        ("near-duplicate images in two splits", "row 3 (", "cosine 0.99", "remove one of each"),
        contract={"near_duplicates": {"min_cosine": 0.99}},
    ),
    "a contract with an unknown type": Case(
        parquet(lambda t: t),
        ("expectations.yaml: columns.label: unknown type 'int'; did you mean 'integer'?", "one of image"),
        {"label": {"type": "int"}},
    ),
    "a contract with a class beyond 64 bits": Case(
        parquet(lambda t: t),
        ("expectations.yaml: columns.label.classes.1: 9223372036854775808: input should be less than",),
        {"label": {"classes": [0, 2**63]}},
    ),
    "a contract with one class": Case(
        parquet(lambda t: t),
        ("expectations.yaml: columns.label: a label is an integer, string or tags with at least two classes;",),
        {"label": {"classes": [1]}},
    ),
    "a contract with an unknown key": Case(
        parquet(lambda t: t),
        ("expectations.yaml: columns.label.clases: unknown key; did you mean 'classes'?",),
        {"label": {"clases": [1]}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_raw_data_is_refused(name: str, tmp_path: Path, digits: pa.Table, refused: Callable[..., Any]) -> None:
    case = CASES[name]
    pairs = ("near_duplicates.csv",)  # all of them, where the error names only some
    refused(command(tmp_path, case, digits), *case.says, allowed=pairs)


def test_raw_data_that_is_not_there_is_refused(tmp_path: Path, digits: pa.Table, refused: Callable[..., Any]) -> None:
    bad = command(tmp_path, CASES["an empty folder"], digits)
    (tmp_path / "raw").rmdir()
    refused(bad, "--in-raw: ", "raw does not exist", "dvc pull")


def test_a_line_of_100_mb_is_refused_in_the_memory_of_a_short_one(
    tmp_path: Path, digits: pa.Table, refused: Callable[..., Any]
) -> None:
    def long_line(raw: Path, table: pa.Table) -> None:
        with (raw / "part.csv").open("wb") as file:
            file.write(b"image,label\n" + csv_rows(table))
            for _ in range(100):
                file.write(b"0 1 " * 250_000)

    (tmp_path / "short").mkdir()
    (tmp_path / "long").mkdir()
    short = command(tmp_path / "short", CASES["a NUL byte"], digits)
    long = command(tmp_path / "long", Case(long_line, ()), digits)
    of_short = refused(short, "a NUL byte", process=True, older=(True,)).peak_bytes
    message = ("part.csv: line 22: longer than 8388608 bytes", "one row a line", "remove the line")
    of_long = refused(long, *message, process=True, older=(False,)).peak_bytes
    assert of_short > 20 * MEBI and of_long - of_short < 64 * MEBI
