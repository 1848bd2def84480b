"""Corpora that are refused before they are tokenised: an error that names the shard, the row or line, what to do."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.errors import InputError
from graftline.text.corpus import iterate_documents, list_shards

MEBI = 1 << 20
GOOD = b'{"text": "a document", "title": "x"}\n'


@dataclass(frozen=True)
class Case:
    """A shard and what the refusal says."""

    name: str
    content: bytes | Callable[[], bytes]
    """Called by the test alone, where making it takes a while."""
    says: tuple[str, ...]


def parquet(column: pa.Array, name: str = "text") -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: column}), sink, row_group_size=2, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()


def invalid_text(rows: list[bytes]) -> pa.Array:
    """Return a string column of bytes that nobody checked."""
    array = pa.array(rows, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


WORDS = pa.array([f"document {n} of some length" for n in range(50)])

CASES = {
    "empty file": Case("a.jsonl", b"", ("a.jsonl", "an empty file")),
    "unknown file type": Case("a.txt", b"text", ("a.txt", "unknown file type", ".jsonl.gz")),
    "50 MB line": Case(
        "a.jsonl", lambda: GOOD + b'{"text": "' + b"x" * (50 * MEBI) + b'"}\n', ("a.jsonl: line 2", "longer than")
    ),
    "50 MB line, compressed": Case(
        "a.jsonl.gz", lambda: gzip.compress(GOOD + b"x" * (50 * MEBI), 1), ("a.jsonl.gz: line 2", "longer than")
    ),
    "50 MB row": Case(
        "a.parquet", lambda: parquet(pa.array(["a", "b", "x" * (50 * MEBI)])), ("a.parquet: row 2", "52428800 bytes")
    ),
    "invalid UTF-8 line": Case(
        "a.jsonl", GOOD + b'{"text": "caf\xe9"}\n', ("a.jsonl: line 2", "byte 13", "0xe9", "iconv")
    ),
    "UTF-16": Case("a.jsonl", GOOD.decode().encode("utf-16"), ("a.jsonl: line 1", "not UTF-8")),
    "invalid UTF-8 row": Case(
        "a.parquet", parquet(invalid_text([b"a", b"b", b"caf\xe9!"])), ("a.parquet: row 2", "byte 3", "UTF-8")
    ),
    "not JSON": Case("a.jsonl", GOOD + b"text\n", ("a.jsonl: line 2", "not JSON")),
    "an array": Case("a.jsonl", GOOD + b"[1]\n", ("a.jsonl: line 2", "no column 'text'", "list")),
    "nested deeply": Case("a.jsonl", GOOD + b"[" * 200_000 + b"\n", ("a.jsonl: line 2", "not JSON")),
    "a number": Case("a.jsonl", GOOD + line({"text": 7}), ("a.jsonl: line 2: text", "type int", "a string")),
    "half a surrogate": Case("a.jsonl", GOOD + b'{"text": "x\\ud83dy"}\n', ("a.jsonl: line 2: text", "surrogate pair")),
    "column missing in a line": Case(
        "a.jsonl", GOOD + line({"txt": "x"}), ("a.jsonl: line 2", "no column 'text'", "did you mean 'txt'?")
    ),
    "column missing in Parquet": Case(
        "a.parquet", parquet(WORDS, "texts"), ("a.parquet", "no column 'text'", "did you mean 'texts'?")
    ),
    "column of numbers": Case("a.parquet", parquet(pa.array([1, 2])), ("a.parquet: text", "type int64")),
    "Parquet cut": Case("a.parquet", parquet(WORDS)[:-20], ("a.parquet", "truncated or damaged")),
    "Parquet of other bytes": Case("a.parquet", GOOD * 20, ("a.parquet", "truncated or damaged")),
    "gzip cut": Case("a.jsonl.gz", gzip.compress(GOOD * 99)[:-20], ("a.jsonl.gz", "truncated or damaged")),
    "gzip bit flipped": Case(
        "a.jsonl.gz", flipped(gzip.compress(GOOD * 99), -6), ("a.jsonl.gz", "truncated or damaged")
    ),
    "not gzip": Case("a.jsonl.gz", GOOD, ("a.jsonl.gz", "truncated or damaged", "Not a gzipped file")),
    "zstd cut": Case("a.jsonl.zst", zstd(GOOD * 99)[:-20], ("a.jsonl.zst", "truncated or damaged")),
    "not zstd": Case("a.jsonl.zst", GOOD, ("a.jsonl.zst", "truncated or damaged")),
}


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_bad_shard_is_refused_with_its_place(case: Case, tmp_path: Path) -> None:
    (tmp_path / case.name).write_bytes(case.content() if callable(case.content) else case.content)
    text = refusal(lambda: list(iterate_documents(list_shards(tmp_path), "text")))
    for fragment in case.says:
        assert fragment in text, f"{fragment!r} is not in: {text}"


def test_a_long_line_is_refused_without_holding_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * (50 * MEBI))
    tracemalloc.start()
    try:
        refusal(lambda: list(iterate_documents(list_shards(tmp_path), "text")))
        assert tracemalloc.get_traced_memory()[1] < 24 * MEBI
    finally:
        tracemalloc.stop()


def test_every_flipped_bit_of_a_compressed_shard_is_noticed_or_harmless(tmp_path: Path) -> None:
    """A damaged file ends in an InputError or gives the documents; never in another error."""
    whole = gzip.compress(GOOD * 20)
    for place in range(0, len(whole), 3):
        (tmp_path / "a.jsonl.gz").write_bytes(flipped(whole, place))
        try:
            documents = list(iterate_documents(list_shards(tmp_path), "text"))
        except InputError:
            continue
        assert documents == ["a document"] * 20


def test_every_cut_of_a_parquet_shard_is_refused(tmp_path: Path) -> None:
    whole = parquet(WORDS)
    for size in range(1, len(whole), 97):
        (tmp_path / "a.parquet").write_bytes(whole[:size])
        refusal(lambda: list(iterate_documents(list_shards(tmp_path), "text")))


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("nowhere", ("nowhere", "no such file or folder")),
        ("empty", ("empty", "no shards")),
        ("nested", ("inner", "not a regular file")),
    ],
)
def test_a_folder_that_is_no_corpus_is_refused(where: str, says: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nested/inner").mkdir(parents=True)
    text = refusal(lambda: list_shards(tmp_path / where))
    assert all(fragment in text for fragment in says), text


@pytest.mark.parametrize("url", ["s3://", "s3://user@bucket/x", "s3://host:9000/bucket"])
def test_an_s3_url_without_a_plain_bucket_is_refused(url: str) -> None:
    assert "expected s3://bucket/prefix" in refusal(lambda: list_shards(url))
