"""Raw text that validate refuses: lines that are no JSON, text that is no UTF-8, labels that do not match."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import Call, call

from graftline.environment import ROOT

MEBI = 1 << 20
TEXT = {"text": {"type": "text"}, "label": {"type": "string", "role": "label", "classes": ["noun", "other"]}}
TAGGED = {"words": {"type": "tokens"}, "tags": {"type": "tags", "classes": ["NOUN", "VERB", "PUNCT"]}}
Rows = list[dict[str, Any]]
Make = Callable[[Path, Rows], object]


@dataclass(frozen=True)
class Case:
    """A way to fill the raw folder from good rows, and what the refusal says."""

    make: Make
    says: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=lambda: TEXT)


@pytest.fixture(scope="session")
def rows() -> Rows:
    """200 of the shipped definitions."""
    path = ROOT / "data" / "glosses" / "raw" / "glosses.parquet"
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `dvc pull`")
    texts = pq.read_table(path, columns=["text"])["text"].slice(0, 200).to_pylist()
    return [{"text": text, "label": ("noun", "other")[number % 2]} for number, text in enumerate(texts)]


def command(folder: Path, case: Case, rows: Rows) -> Call:
    """Write the case's files below `folder` and return the call of validate on them."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    case.make(raw, rows)
    expectations = folder / "expectations.yaml"
    expectations.write_text(json.dumps({"columns": case.columns}))
    store = folder / "store"
    return call(
        "validate",
        json.dumps({"task": "digits"}),
        folder / "outputs" / "dataset",
        "--store",
        str(store),
        inputs=(store,),
        raw=raw,
        expectations=expectations,
    )


# Ways to make files


def lines(*more: bytes) -> Make:
    """Write one good line of JSON, then `more`, then the good lines."""

    def make(raw: Path, rows: Rows) -> None:
        good = [json.dumps(row).encode() for row in rows]
        (raw / "part.jsonl").write_bytes(b"\n".join([good[0], *more, *good[1:]]) + b"\n")

    return make


def changed(change: Callable[[Rows], object]) -> Make:
    """Write JSON lines of the good rows after `change`, which works in place."""

    def make(raw: Path, rows: Rows) -> None:
        copies = [dict(row) for row in rows]
        change(copies)
        (raw / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in copies))

    return make


def each(name: str, value: Callable[[Any], Any], places: slice = slice(None)) -> Make:
    def change(rows: Rows) -> None:
        for row in rows[places]:
            row[name] = value(row.get(name))

    return changed(change)


def tagged(words: Callable[[list[str]], Any], tags: Callable[[list[str]], Any]) -> Make:
    """Write the good rows as sentences in which every word is a noun, with words and tags changed in ten."""

    def make(raw: Path, rows: Rows) -> None:
        sentences = [row["text"].split() for row in rows]
        made = [{"words": found, "tags": ["NOUN"] * len(found)} for found in sentences]
        for row in made[20:30]:
            row["words"], row["tags"] = words(row["words"]), tags(row["tags"])
        (raw / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))

    return make


def labels_apart(raw: Path, rows: Rows) -> None:
    """Write texts and labels in a file each, one label too few."""
    (raw / "a.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    (raw / "b.jsonl").write_text("".join(json.dumps({"label": row["label"]}) + "\n" for row in rows[1:]))


def labels_apart_in_parquet(raw: Path, rows: Rows) -> None:
    pq.write_table(pa.table({"text": [row["text"] for row in rows]}), raw / "a.parquet")
    pq.write_table(pa.table({"label": [row["label"] for row in rows[1:]]}), raw / "b.parquet")


def latin_1_in_parquet(raw: Path, rows: Rows) -> None:
    texts = pa.array([b"caf\xe9"] * len(rows), pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts, "label": [row["label"] for row in rows]}), raw / "a.parquet")


def same(value: Any) -> Any:
    return value


SECOND = "part.jsonl: line 2: "
CASES = {
    "a line that is no JSON": Case(lines(b'{"text": "cut'), (SECOND + "not JSON", "one object a line")),
    "a line that is a list": Case(lines(b'["a", "noun"]'), (SECOND + "a JSON list", "expected an object")),
    "a key twice": Case(lines(b'{"text": "a", "text": "b"}'), (SECOND + "not JSON (a key stands twice)",)),
    "an unknown key": Case(
        lines(b'{"text": "a", "lable": "noun"}'),
        (SECOND + "unknown column 'lable'; did you mean 'label'?", "the columns text, label"),
    ),
    "NaN": Case(lines(b'{"text": NaN, "label": "noun"}'), (SECOND + "not JSON (NaN is no JSON value)",)),
    "half of a surrogate pair": Case(
        lines(rb'{"text": "\ud83d", "label": "noun"}'), (SECOND + "half of a surrogate pair", "correct the \\u escape")
    ),
    "a deep nest": Case(lines(b"[" * 100_000), (SECOND + "nested too deep",)),
    "a number of 10,000 digits": Case(lines(b'{"text": ' + b"1" * 10_000 + b"}"), (SECOND + "not JSON",)),
    "latin-1": Case(lines(b'{"text": "caf\xe9", "label": "noun"}'), (SECOND + "byte ", "(0xe9) is not UTF-8", "iconv")),
    "latin-1 in Parquet": Case(latin_1_in_parquet, ("a.parquet", "UTF8")),
    "a bare NUL byte": Case(lines(b'{"text": "a\0b", "label": "noun"}'), (SECOND + "a NUL byte",)),
    "UTF-16": Case(
        lambda raw, rows: (raw / "part.jsonl").write_text(json.dumps(rows[0]), encoding="utf-16"),
        ("part.jsonl", "which is UTF-16 text", "expected JSON lines in UTF-8"),
    ),
    "no line": Case(lambda raw, _: (raw / "a.jsonl").write_bytes(b""), ("a.jsonl: an empty file (0 bytes)",)),
    "empty lines only": Case(lambda raw, _: (raw / "a.jsonl").write_bytes(b"\n\n"), ("a.jsonl: no rows",)),
    "text and numbers in one column": Case(
        each("text", lambda _: 7, slice(5, 6)),
        ("part.jsonl: column 'text': no one type in rows 0 to 199", "values of one type, or null"),
    ),
    "numbers for text": Case(each("text", len), ("column 'text': type int64; expected text (string)",)),
    "a document of 50 MB in CSV": Case(
        lambda raw, rows: long_line("part.csv", b"text,label\n", b",noun\n")(raw, rows),
        ("part.csv: line 2: longer than 8388608 bytes", "one row a line", "remove the line"),
    ),
    "empty documents": Case(
        each("text", lambda _: " \n", slice(10, 20)),
        ("10 of 200 rows", "text.min_length in 10 (rows 10, 11, 12, 13, 14, ...)"),
    ),
    "control characters": Case(
        each("text", lambda text: text + "\0\x1b", slice(10)), ("text.characters in 10 (rows 0, 1, 2",)
    ),
    "a label that the contract does not know": Case(
        each("label", lambda _: "verb", slice(4)), ("label.classes in 4 (rows 0, 1, 2, 3)",)
    ),
    "labels in a file of their own, one too few": Case(
        labels_apart, ("399 of 399 rows", "label.not_null in 200", "text.not_null in 199")
    ),
    "labels in a Parquet file of their own": Case(labels_apart_in_parquet, ("a.parquet: column 'label' is missing",)),
    "fewer tags than words": Case(tagged(same, lambda tags: tags[1:]), ("tags.length in 10 (rows 20, 21, 22",), TAGGED),
    "more tags than words": Case(
        tagged(lambda words: words[1:], same), ("tags.length in 10 (rows 20, 21, 22",), TAGGED
    ),
    "a tag that the contract does not know": Case(
        tagged(same, lambda tags: ["NUON", *tags[1:]]), ("tags.classes in 10 (rows 20, 21",), TAGGED
    ),
    "sentences without words": Case(
        tagged(lambda _: [], lambda _: []), ("words.min_length in 10 (rows 20, 21",), TAGGED
    ),
    "a text where words belong": Case(
        tagged(" ".join, same), ("column 'words': no one type in rows 0 to 199",), TAGGED
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_text_is_refused(name: str, tmp_path: Path, rows: Rows, refused: Callable[..., Any]) -> None:
    case = CASES[name]
    refused(command(tmp_path, case, rows), *case.says)


def long_line(name: str, before: bytes, after: bytes) -> Make:
    """Write a line of 50 MB."""

    def make(raw: Path, rows: Rows) -> None:
        with (raw / name).open("wb") as file:
            file.write(before)
            for _ in range(50):
                file.write(b"word " * 200_000)
            file.write(after)

    return make


def test_a_document_of_50_mb_on_one_line_is_refused_in_the_memory_of_a_short_one(
    tmp_path: Path, rows: Rows, refused: Callable[..., Any]
) -> None:
    short = command(tmp_path / "short", CASES["a bare NUL byte"], rows)
    make = long_line("part.jsonl", b'{"text": "', b'", "label": "noun"}\n')
    long = command(tmp_path / "long", Case(make, ()), rows)
    of_short = refused(short, "a NUL byte", process=True, older=(True,)).peak_bytes
    message = ("part.jsonl: line 1: longer than 8388608 bytes", "one row a line", "remove the line")
    of_long = refused(long, *message, process=True, older=(False,)).peak_bytes
    assert of_short > 20 * MEBI and of_long - of_short < 64 * MEBI
