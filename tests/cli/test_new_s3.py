"""`graftline new TASK s3://bucket/prefix`: what a bucket holds becomes a task, verified, whatever the format."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "intake"))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

import owned
from servers import moto_endpoint, moto_url
from test_new import changed, new

from graftline.cli import new as command
from graftline.errors import BusyError, InputError
from graftline.intake import remote
from graftline.store.objects import Object, fetch, list_objects

__all__ = ["moto_endpoint", "moto_url"]


def put(url: str, data: bytes) -> None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    boto3.session.Session().client("s3").put_object(Bucket=bucket, Key=key, Body=data)


def arrow(rows: list[dict[str, object]]) -> bytes:
    out, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())


def parquet(rows: list[dict[str, object]]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return bytes(out.getvalue())


def bring(url: str) -> Path:
    with ExitStack() as until:
        return remote.bring(url, until, copies=2)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remote, "FETCHED", tmp_path / "fetched")
    return tmp_path / "fetched"


def test_shards_in_a_bucket_become_a_task(checkout: Path, moto_url: str) -> None:
    rows, size = owned.labelled(120), 0
    for number in range(3):
        shard = arrow(rows[number * 40 : number * 40 + 40])
        put(f"{moto_url}/x/part-{number}.arrow", shard)
        size += len(shard)
    for name in ("x/_SUCCESS", "x/.part.crc", "x/folder/", "xy/other.arrow"):
        put(f"{moto_url}/{name}", b"")
    done = new(checkout, "letters", f"{moto_url}/x", "--licence", "CC0-1.0")
    assert done.returncode == 0, done.stderr
    assert f"new: fetched 4 objects, {size:,} bytes, from {moto_url}/x" in done.stderr
    task = checkout / "data/letters"
    assert [path.name for path in sorted((task / "raw").iterdir())] == [f"part-{n}.arrow" for n in range(3)]
    assert f"`{moto_url}/x`: 3 files" in (task / "README.md").read_text()
    assert not list((checkout / "outputs/fetched").glob("[!.]*")), "nothing is kept twice"
    assert "data/letters/raw.dvc" in changed(checkout)


def test_a_call_that_ends_with_a_question_keeps_what_it_fetched(
    moto_url: str, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(f"{moto_url}/x/a.jsonl", "".join(json.dumps(row) + "\n" for row in owned.labelled(60)).encode())
    with pytest.raises(InputError, match=r"--label: there is no column 'labe'; did you mean 'label'\?"):
        command.new("letters", f"{moto_url}/x", label="labe", yes=True)
    assert "new: fetched 1 objects" in capsys.readouterr().err
    command.new("letters", f"{moto_url}/x", yes=True, dry_run=True, as_json=True)
    said = capsys.readouterr()
    assert (json.loads(said.out)["rows"], said.err) == (60, "")
    assert len(list(fetched.glob("[!.]*"))) == 1


def test_what_cannot_be_read_is_named_by_its_url(moto_url: str, fetched: Path) -> None:
    put(f"{moto_url}/x/a.parquet", b"PAR1 and no more")
    for url, said in (
        (f"{moto_url}/x", f"{moto_url}/x/a.parquet: truncated or damaged"),
        (f"{moto_url}/none", f"{moto_url}/none: no objects"),
        ("s3://no-such-bucket/x", "NoSuchBucket"),
        ("gs://bucket/x", "copy it to this machine, or to S3"),
    ):
        with pytest.raises(InputError) as refused:
            command.new("letters", url, yes=True)
        assert said in str(refused.value)


def test_one_object_is_a_file_and_a_fetch_that_was_killed_goes_on(moto_url: str, fetched: Path) -> None:
    put(f"{moto_url}/x/a.parquet", parquet(owned.labelled(9)))
    put(f"{moto_url}/x/in/b.parquet", parquet(owned.labelled(9)))
    one = bring(f"{moto_url}/x/a.parquet")
    assert one.name == "a.parquet" and len(pq.read_table(one)) == 9
    both = bring(f"{moto_url}/x")
    (both / "in/b.parquet").rename(both / "in/.b.part")  # as a kill leaves it
    kept = (both / "a.parquet").stat().st_ino
    assert bring(f"{moto_url}/x") == both
    assert (both / "a.parquet").stat().st_ino == kept and (both / "in/b.parquet").is_file()
    put(f"{moto_url}/x/a.parquet", parquet(owned.labelled(8)))
    assert bring(f"{moto_url}/x") != both, "another version is another listing"
    for path in (one, both):
        remote.forget(path)
        assert not path.exists()


@pytest.mark.parametrize("key", ["x/../../outside.csv", "x//a.csv", "x/a/../../b.csv", f"x/{'n' * 300}.csv"])
def test_a_key_that_is_no_path_below_the_folder_is_refused(moto_url: str, fetched: Path, key: str) -> None:
    listed = Object(f"{moto_url}/{key}", key.removeprefix("x/"), 1, '"tag"')
    with pytest.raises(InputError, match="no path of a file"):
        remote._check_names([listed])


def test_a_key_that_is_the_folder_of_another_is_refused(moto_url: str, fetched: Path) -> None:
    for key in ("x/a", "x/a/b.csv"):
        put(f"{moto_url}/{key}", b"text,label\n")
    with pytest.raises(InputError, match="'a' is an object too"):
        bring(f"{moto_url}/x")
    assert not list(fetched.glob("[!.]*"))


def test_bytes_that_are_not_those_of_the_etag_are_refused(
    moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{moto_url}/a.csv", b"text,label\n")
    (listed,) = list_objects(f"{moto_url}/a.csv", "PATH")
    monkeypatch.setattr("graftline.store.objects._Bucket.ranges", lambda self, key, wanted: iter([b"text,lable\n"]))
    with (tmp_path / "a.csv").open("wb") as file, pytest.raises(InputError, match="what came has the MD5"):
        fetch(listed, file)


def test_more_than_the_disk_has_room_for_is_refused_before_anything_is_fetched(
    moto_url: str, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{moto_url}/a.csv", b"text,label\n")
    huge = Object(f"{moto_url}/a.csv", "a.csv", 1 << 52, '"tag"')
    monkeypatch.setattr(remote, "list_objects", lambda url, where: [huge])
    with pytest.raises(InputError, match=r"bytes are free at .*expected 9,007,199,254,740,992"):
        bring(moto_url)
    assert not list(fetched.glob("[!.]*"))


def test_what_one_call_fetched_is_not_taken_away_by_another(moto_url: str, fetched: Path) -> None:
    put(f"{moto_url}/x/a.csv", b"text,label\n")
    with ExitStack() as until:
        remote.bring(f"{moto_url}/x", until, copies=2)
        with pytest.raises(BusyError):
            bring(f"{moto_url}/x")
    assert bring(f"{moto_url}/x").is_dir()
