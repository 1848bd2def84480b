"""What raw data seems to be (graftline.raw.files.look): as written by pandas, pyarrow and Hugging Face datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import rows

from graftline.errors import InputError
from graftline.raw import sniff
from graftline.raw.files import look

RECORDINGS = Path(__file__).parent / "recordings"
TEXTS = {
    "cp1252": "Der Fluß fließt träge unter der Brücke, und große Häuser stehen daneben",
    "cp1250": "Zażółć gęślą jaźń, dzień dobry, co słychać u was dzisiaj",
    "cp1251": "Привет, это отзыв о товаре. Мне очень понравилось качество",
    "shift_jis": "これは日本語のテキストです。とても良い商品でした。",
    "gb18030": "这是一个中文文本，商品质量非常好，我很喜欢。",
}


def frame(count: int = 300) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": [f'words, "quoted"; number {n}\nand more' for n in range(count)],
            "label": ["ham", "spam", "eggs"] * (count // 3),
            "number": range(count),
            "share": [n / 8 for n in range(count)],
            "code": ["007", "1e5", "NA"] * (count // 3),
            "yes": [True, False, True] * (count // 3),
        }
    )


KINDS = ["string", "string", "int64", "double", "string", "bool"]


@pytest.mark.parametrize(
    ("name", "how", "expected"),
    [
        ("x.csv", {}, {"delimiter": ","}),
        ("x.csv", {"sep": ";", "encoding": "utf-8-sig", "lineterminator": "\r\n"}, {"delimiter": ";"}),
        ("x.csv", {"sep": "|", "quotechar": "'"}, {"delimiter": "|", "quote": "'"}),
        ("x.tsv", {"sep": "\t", "encoding": "utf-16"}, {"delimiter": "\t", "encoding": "utf-16"}),
        ("x.csv.gz", {}, {"delimiter": ","}),
        ("x.csv", {"header": False}, {"header": tuple(f"column_{n}" for n in range(1, 7))}),
    ],
)
def test_how_csv_is_written_is_guessed_and_reads_it(
    tmp_path: Path, name: str, how: dict[str, Any], expected: dict[str, Any]
) -> None:
    frame().to_csv(tmp_path / name, index=False, **how)
    found = look(tmp_path)
    assert {key: getattr(found.source, key) for key in expected} == expected
    assert [str(field.type) for field in found.schema] == KINDS
    assert (found.format, found.rows, found.exact, found.misfits, found.is_text) == ("csv", 300, True, 0, True)
    columns = found.schema.names
    assert [row[0] for row in rows(tmp_path, columns, found.source)] == frame()["text"].tolist()


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_encoding_of_text_is_guessed(encoding: str) -> None:
    table = "".join(f"{number},{TEXTS[encoding]},ham\n" for number in range(50))
    assert sniff.guess_encoding(table.encode(encoding)) == encoding


def test_one_column_needs_no_separator(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text\nsome words\nmore of them\n")
    found = look(tmp_path)
    assert (found.source.delimiter, found.schema.names, found.rows) == (None, ["text"], 2)


def test_columns_of_every_format_are_found(tmp_path: Path) -> None:
    plain = frame().drop(columns=["yes"])
    writers: dict[str, Any] = {
        "x.xlsx": lambda path: plain.to_excel(path, index=False),
        "x.jsonl": lambda path: plain.to_json(path, orient="records", lines=True),
        "x.feather": plain.to_feather,
        "x.parquet": plain.to_parquet,
    }
    for name, write in writers.items():
        write(tmp_path / name)
        found = look(tmp_path / name)
        kinds = [str(field.type).removeprefix("large_") for field in found.schema]
        assert (name, kinds, found.rows, found.exact) == (name, KINDS[:5], 300, True)
        assert found.sample["code"].to_pylist()[:3] == ["007", "1e5", "NA"]


def test_folders_of_spark_and_of_hugging_face_are_found(tmp_path: Path) -> None:
    pq.write_to_dataset(pa.Table.from_pandas(frame()), tmp_path, partition_cols=["label"])
    found = look(tmp_path)
    assert (found.rows, found.exact, len(found.parts)) == (300, True, 3)
    assert set(found.sample["label"].to_pylist()) == {"ham", "spam", "eggs"}
    splits = look(RECORDINGS / "saved_splits")
    assert (splits.format, splits.rows, splits.schema.names) == ("saved", 8, ["text", "label", "split"])
    assert splits.class_names == {"label": ["ham", "spam"]}


def test_of_large_files_the_beginning_is_read_and_the_rows_are_estimated(tmp_path: Path) -> None:
    large = pd.concat([frame(3000)] * 20)
    large.to_csv(tmp_path / "a.csv", index=False)
    large.to_csv(tmp_path / "b.csv.gz", index=False)
    for path in tmp_path.iterdir():
        found = look(path, rows=50, budget=100_000)
        assert len(found.sample) == 50 and not found.exact
        assert 0.6 < found.rows / len(large) < 1.5


def test_what_cannot_be_read_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"a": "x"}\n')
    with pytest.raises(InputError, match="a column of several types"):
        look(tmp_path)
