"""The promises of a store, the same tests on each backend."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import forked
import pytest

from graftline.errors import GraftlineError, InputError
from graftline.store import MissingError
from graftline.store.opening import open_store

RACERS = Path(__file__).with_name("racers.py")
NOT_KEYS = [
    "",
    "/etc/passwd",
    "a/../../b",
    "..",
    "a/./b",
    "a//b",
    "a/",
    ".hidden",
    "a/.aside",
    "a\\b",
    "a\0b",
    "ä",
    "a b",
    "a/" * 400 + "a",
]


def race(verb: str, url: str, processes: int, last: object) -> list:
    done = forked.run([sys.executable, str(RACERS), verb, url, str(processes), str(last)], text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_was_deleted_is_not_there_and_may_come_again(store_url: str) -> None:
    store = open_store(store_url)
    store.put_if_absent("a/b", b"first")
    store.put_if_absent("a/b2", b"another")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/there")
    assert store.list("a/") == ["a/b2"]
    with pytest.raises(MissingError):
        store.get("a/b")
    assert store.put_if_absent("a/b", b"second")
    assert store.get("a/b").data == b"second"


def test_the_first_put_wins_and_an_equal_one_agrees(store_url: str) -> None:
    store = open_store(store_url)
    assert store.put_if_absent("a/b.json", b"first")
    assert store.put_if_absent("a/b.json", b"first")
    assert not store.put_if_absent("a/b.json", b"other")
    assert not store.put_if_absent("a/b.json", b"first and more")
    assert store.get("a/b.json").data == b"first"


def test_a_file_is_stored_and_downloaded_whole(store_url: str, tmp_path: Path) -> None:
    store, source = open_store(store_url), tmp_path / "weights"
    source.write_bytes(os.urandom(3 << 20))
    assert store.put_if_absent("weights", source)
    assert store.put_if_absent("weights", source)
    store.download("weights", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    source.write_bytes(b"other")
    assert not store.put_if_absent("weights", source)


def test_an_empty_object_is_an_object(store_url: str) -> None:
    store = open_store(store_url)
    assert store.put_if_absent("empty", b"")
    assert not store.put_if_absent("empty", b"x")
    assert store.get("empty").data == b""


def test_replace_needs_the_tag_of_what_is_there(store_url: str) -> None:
    store = open_store(store_url)
    assert store.replace("alias", b"1", None)
    assert not store.replace("alias", b"2", None)
    tag = store.get("alias").tag
    assert store.replace("alias", b"2", tag)
    assert not store.replace("alias", b"3", tag)
    assert store.get("alias").data == b"2"
    assert not store.replace("nothing-here", b"1", tag)
    assert store.list("nothing") == []


def test_list_gives_the_keys_below_a_prefix_in_order(store_url: str) -> None:
    store = open_store(store_url)
    assert store.list("") == []
    for key in ("b/2", "b/10", "a", "b2/1", "b/1/x"):
        store.put_if_absent(key, key.encode())
    assert store.list("") == ["a", "b/1/x", "b/10", "b/2", "b2/1"]
    assert store.list("b/") == ["b/1/x", "b/10", "b/2"]
    assert store.list("b") == ["b/1/x", "b/10", "b/2", "b2/1"]
    assert store.list("b/1") == ["b/1/x", "b/10"]
    assert store.list("c/") == []


def test_an_absent_key_is_missing(store_url: str, tmp_path: Path) -> None:
    store = open_store(store_url)
    store.put_if_absent("folder/key", b"x")
    for key in ("other", "folder", "folder/key/below"):
        with pytest.raises(MissingError):
            store.get(key)
        with pytest.raises(MissingError):
            store.download(key, tmp_path / "x")


@pytest.mark.parametrize("key", NOT_KEYS)
def test_a_key_cannot_leave_the_store(store_url: str, key: str, tmp_path: Path) -> None:
    store = open_store(store_url)
    for act in (
        lambda: store.get(key),
        lambda: store.put_if_absent(key, b"x"),
        lambda: store.replace(key, b"x", None),
        lambda: store.download(key, tmp_path / "x"),
    ):
        with pytest.raises(InputError, match="store key"):
            act()
    assert store.list("") == []


def test_of_32_processes_one_wins_each_key(store_url: str) -> None:
    keys = 5
    won = race("put", store_url, 32, keys)
    assert sorted(key for keys_of_one in won for key in keys_of_one) == list(range(keys))
    store = open_store(store_url)
    for child, keys_of_one in enumerate(won):
        for key in keys_of_one:
            assert store.get(f"race/{key}").data == f"child {child}".encode() * 1000


def test_a_counter_under_compare_and_swap_loses_no_update(store_url: str) -> None:
    processes, increments = 8, 5
    store = open_store(store_url)
    store.put_if_absent("counter", b'{"number": 0}')
    stored = race("count", store_url, processes, increments)
    assert sorted(number for one in stored for number in one) == list(range(1, processes * increments + 1))
    assert json.loads(store.get("counter").data)["number"] == processes * increments


def test_files_of_a_killed_writer_are_not_listed_and_are_swept_when_old(tmp_path: Path) -> None:
    open_store(str(tmp_path)).put_if_absent("whole", b"x")
    old, new = tmp_path / ".aside" / "old", tmp_path / ".aside" / "new"
    for path in (old, new):
        path.write_bytes(b"half an upl")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    store = open_store(str(tmp_path))
    assert store.list("") == ["whole"]
    store.put_if_absent("another", b"y")
    assert not old.exists()
    assert new.exists()


def test_a_torn_upload_to_s3_is_invisible(real_url: str) -> None:
    """The body breaks off half-way; moto would not notice, so only a real server is asked."""
    import boto3

    bucket, _, prefix = real_url.removeprefix("s3://").partition("/")
    signed = boto3.client("s3").generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": f"{prefix}/torn"})
    parts = urlsplit(signed)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 100000"
        connection.sendall(f"{head}\r\n\r\n".encode() + b"x" * 50_000)
    time.sleep(0.5)
    store = open_store(real_url)
    assert store.list("") == []
    with pytest.raises(MissingError):
        store.get("torn")


def test_a_link_out_of_a_directory_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "releases").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="leads out of the store"):
        open_store(str(tmp_path / "store")).put_if_absent("releases/x", b"x")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_read_only_directory_is_one_line() -> None:
    code = (
        "import os, sys; from graftline.errors import InputError; from graftline.store.opening import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "if os.getuid() == 0: os.setuid(65534)\n"  # root may write anywhere
        "try: store.put_if_absent('a/b', b'x')\n"
        "except InputError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to other users
        folder = Path(name)
        folder.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True)
        assert list(folder.iterdir()) == []
    assert done.stdout == (
        f"store {name}: cannot write a/b: permission denied; make room, or correct the path or its permissions\n"
    ), done.stderr


def test_a_store_inside_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write a/b: file exists"):
        open_store(str(tmp_path / "file" / "store")).put_if_absent("a/b", b"x")


def test_an_unreachable_server_is_one_line_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftline.store.s3 import S3Store

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:endpoint-password@127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = S3Store("bucket", "prefix", backoff=0)
    for act in (lambda: store.get("key"), lambda: store.put_if_absent("key", b"x"), lambda: store.list("")):
        with pytest.raises(GraftlineError, match=f"http://127.0.0.1:{port} did not serve it in 6 tries") as caught:
            act()
        assert "\n" not in str(caught.value)
        assert not any(secret in str(caught.value) for secret in ("password", "the-key-id", "the-secret"))


def test_a_missing_bucket_is_one_line(moto_url: str) -> None:
    with pytest.raises(InputError, match="NoSuchBucket; check the bucket's name"):
        open_store("s3://no-such-bucket/prefix").put_if_absent("key", b"x")


def test_missing_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/prefix").get("key")


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///prefix", "s3://key:secret@bucket/prefix", "gs://bucket", "s3://bucket/../x"]
)
def test_a_url_that_names_no_store_is_refused_without_repeating_credentials(url: str) -> None:
    with pytest.raises(InputError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
