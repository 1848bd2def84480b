"""Corpora as shards: the same documents whatever the format and the place, in bounded memory and a fixed order."""

from __future__ import annotations

import gzip
import tempfile
import tracemalloc
from pathlib import Path

import prose
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.store import objects
from graftline.text.corpus import (
    BATCH_CHARACTERS,
    BATCH_ROWS,
    iterate_documents,
    list_shards,
    open_shard,
    read_documents,
)

TEXTS = ["", "One.", "Zwei übers Eck.", "שלום עולם", "👩‍🚀 goes up", "tab\tand\nline", "  spaces  "]


def put(url: str, data: bytes) -> None:
    import boto3

    bucket, _, key = url.removeprefix("s3://").partition("/")
    boto3.session.Session().client("s3").put_object(Bucket=bucket, Key=key, Body=data)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


WRITERS = {
    "a.jsonl": prose.jsonl,
    "a.jsonl.gz": lambda texts: gzip.compress(prose.jsonl(texts)),
    "a.jsonl.zst": lambda texts: zstd(prose.jsonl(texts)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_line_file_gives_the_documents_unchanged(name: str, tmp_path: Path, texts: list[str]) -> None:
    documents = TEXTS + texts
    (tmp_path / name).write_bytes(WRITERS[name](documents))
    assert list(iterate_documents(list_shards(tmp_path), "text")) == documents


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array([[text] for text in TEXTS]),
    ],
    ids=lambda column: str(column.type),
)
def test_every_kind_of_text_column_gives_the_documents_unchanged(column: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", row_group_size=2)
    assert list(iterate_documents(list_shards(tmp_path), "text")) == TEXTS


def test_lists_of_words_are_joined_by_spaces(tmp_path: Path) -> None:
    pq.write_table(pa.table({"words": [["Not", "one", "."], [], None]}), tmp_path / "a.parquet")
    assert list(iterate_documents(list_shards(tmp_path), "words")) == ["Not one .", "", ""]


def test_a_missing_value_and_an_empty_line_keep_their_rows(tmp_path: Path) -> None:
    prose.write_parquet(tmp_path / "a.parquet", ["first", None, "third"])
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "first"}\n\n{"text": null}\n{"text": "fourth"}')
    documents = [list(iterate_documents([shard], "text")) for shard in list_shards(tmp_path)]
    assert documents == [["first", "", "third"], ["first", "", "", "fourth"]]


def test_batches_are_small_whatever_the_row_groups(tmp_path: Path, texts: list[str]) -> None:
    prose.write_parquet(tmp_path / "a.parquet", texts * 2, row_group_size=10_000)
    (tmp_path / "b.jsonl").write_bytes(prose.jsonl(texts * 2))
    longest = max(map(len, texts))
    for shard in list_shards(tmp_path):
        batches = list(read_documents(shard, "text"))
        assert len(batches) > 10
        assert all(len(batch) <= BATCH_ROWS for batch in batches)
        assert all(sum(map(len, batch)) < BATCH_CHARACTERS + longest for batch in batches)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_memory_does_not_grow_with_the_shard(name: str, tmp_path: Path, texts: list[str]) -> None:
    many = texts * 40  # 18 million characters
    if name.endswith(".parquet"):
        prose.write_parquet(tmp_path / name, many, use_dictionary=False)
    else:
        (tmp_path / name).write_bytes(gzip.compress(prose.jsonl(texts) * 40, 1))
    (shard,) = list_shards(tmp_path)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        count, arrow = 0, 0
        for documents in read_documents(shard, "text"):
            count += len(documents)
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        assert count == len(many)
        assert tracemalloc.get_traced_memory()[1] + arrow < 12 << 20
    finally:
        tracemalloc.stop()


def test_shards_are_listed_by_name_with_their_digests(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_bytes(prose.jsonl([name]))
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden").touch()
    shards = list_shards(tmp_path)
    assert [shard.name for shard in shards] == ["a.jsonl", "b.jsonl"]
    assert shards[0].sha256 == sha256_bytes(prose.jsonl(["a.jsonl"]))
    assert list_shards(tmp_path / "b.jsonl") == shards[1:]


def test_a_corpus_in_s3_reads_as_one_on_the_disk(moto_url: str, tmp_path: Path, texts: list[str]) -> None:
    prose.write_parquet(tmp_path / "x/lang=en/a.parquet", texts)
    files = {"x/lang=en/a.parquet": (tmp_path / "x/lang=en/a.parquet").read_bytes()}
    files |= {"x/b.jsonl.zst": zstd(prose.jsonl(texts)), "x/_SUCCESS": b"", "xy/c.jsonl": b"of another corpus"}
    for name, data in files.items():
        put(f"{moto_url}/{name}", data)
    shards = list_shards(f"{moto_url}/x")
    assert [shard.name for shard in shards] == ["b.jsonl.zst", "lang=en/a.parquet"]
    assert [shard.size for shard in shards] == [len(files["x/b.jsonl.zst"]), len(files["x/lang=en/a.parquet"])]
    assert list(iterate_documents(shards, "text")) == texts * 2
    (single,) = list_shards(f"{moto_url}/x/b.jsonl.zst")
    with open_shard(single) as opened:
        assert opened.shard.sha256 == sha256_bytes(files["x/b.jsonl.zst"])


def test_an_object_is_fetched_in_ranges_and_leaves_no_file(
    moto_url: str, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prose.jsonl(texts)
    put(f"{moto_url}/a.jsonl", data)
    monkeypatch.setattr(objects, "RANGE_BYTES", len(data) // 7)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_shard(*list_shards(moto_url)) as opened:
        assert opened.shard.sha256 == sha256_bytes(data)
        assert [text for batch in opened.documents("text") for text in batch] == texts
        assert not list(tmp_path.iterdir())


def test_an_object_that_changed_since_it_was_listed_is_refused(moto_url: str) -> None:
    put(f"{moto_url}/a.jsonl", prose.jsonl(["before"]))
    (shard,) = list_shards(moto_url)
    put(f"{moto_url}/a.jsonl", prose.jsonl(["after."]))
    with pytest.raises(InputError, match=r"a\.jsonl: changed since it was listed"):
        list(read_documents(shard, "text"))
