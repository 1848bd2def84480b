"""Bundles: whole or not there, verified, whichever backend holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError
from graftline.store import MissingError, Store, bundles
from graftline.store.bundles import (
    DamagedError,
    Source,
    StoppedError,
    delete_all,
    delete_bundle,
    get_bundle,
    list_bundles,
    put_bundle,
)
from graftline.store.opening import open_store


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Source]:
    """Three files: of several parts, in a folder, empty; and the first bytes of a fourth."""
    monkeypatch.setattr(bundles, "PART_BYTES", 1000)
    contents = {"state": bytes(range(256)) * 15, "a b/ä.json": b"{}", "empty": b"", "log": b"line 1\nline 2\n"}
    for number, content in enumerate(contents.values()):
        (tmp_path / f"source-{number}").write_bytes(content)
    sources = {name: Source(tmp_path / f"source-{number}") for number, name in enumerate(contents)}
    return sources | {"log": Source(sources["log"].path, 7)}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundle_comes_back_byte_for_byte(store_url: str, files: dict[str, Source], tmp_path: Path) -> None:
    store = open_store(store_url)
    put_bundle(store, "some/place", "one", files)
    (tmp_path / "out").mkdir()
    get_bundle(store, "some/place", "one", tmp_path / "out")
    expected = {name: source.path.read_bytes() for name, source in files.items()} | {"log": b"line 1\n"}
    assert contents(tmp_path / "out") == expected
    assert list_bundles(store, "some/place") == ["one"]
    assert list_bundles(store, "some") == [], "those below, not those further below"


def test_a_second_bundle_of_a_name_does_not_mix_with_the_first(
    store_url: str, files: dict[str, Source], tmp_path: Path
) -> None:
    store = open_store(store_url)
    put_bundle(store, "some/place", "one", files)
    before = files["state"].path.read_bytes()
    files["state"].path.write_bytes(before[::-1])
    put_bundle(store, "some/place", "one", files)
    get_bundle(store, "some/place", "one", tmp_path / "out")
    assert (tmp_path / "out/state").read_bytes() == before


def test_deleting_leaves_the_others(store_url: str, files: dict[str, Source], tmp_path: Path) -> None:
    store = open_store(store_url)
    for name in ("10", "20", "30"):
        put_bundle(store, "p/q", name, files)
    delete_bundle(store, "p/q", "20")
    assert list_bundles(store, "p/q") == ["10", "30"]
    assert not [key for key in store.list("p/q/") if key.startswith("p/q/20")]
    get_bundle(store, "p/q", "30", tmp_path / "out")
    with pytest.raises(MissingError):
        get_bundle(store, "p/q", "20", tmp_path / "none")
    delete_bundle(store, "p/q", "20")
    delete_all(store, "p")
    assert store.list("") == []


def damaged_part(store: Store, prefix: str) -> str:
    return next(key for key in store.list(prefix) if not key.endswith(".json"))


@pytest.mark.parametrize("what", ["part", "manifest", "no part"])
def test_what_was_changed_or_cut_is_refused(what: str, tmp_path: Path, files: dict[str, Source]) -> None:
    store = open_store(str(tmp_path / "store"))
    put_bundle(store, "p", "one", files)
    key = "p/one.json" if what == "manifest" else damaged_part(store, "p/")
    path = tmp_path / "store" / key
    if what == "no part":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MissingError if what == "no part" else DamagedError):
        get_bundle(store, "p", "one", tmp_path / "out")


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../b", ""])
def test_no_file_is_written_outside_the_folder(name: str, tmp_path: Path, files: dict[str, Source]) -> None:
    store = open_store(str(tmp_path / "store"))
    put_bundle(store, "p", "one", {name: files["state"]})
    with pytest.raises(DamagedError, match="a path inside the folder"):
        get_bundle(store, "p", "one", tmp_path / "folder")


def test_a_stopped_upload_is_no_bundle(store_url: str, files: dict[str, Source]) -> None:
    store = open_store(store_url)
    asked = iter([False, False, True])
    with pytest.raises(StoppedError):
        put_bundle(store, "p", "one", files, stopped=lambda: next(asked))
    assert list_bundles(store, "p") == []
    assert len(store.list("p/")) == 2


def test_a_file_that_lost_bytes_is_no_bundle(tmp_path: Path, files: dict[str, Source]) -> None:
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(OSError, match="has 14 bytes, not 15"):
        put_bundle(store, "p", "one", {"log": Source(files["log"].path, 15)})
    assert list_bundles(store, "p") == []


def test_a_part_under_which_other_bytes_lie_is_said(tmp_path: Path, files: dict[str, Source]) -> None:
    store = open_store(str(tmp_path / "store"))
    put_bundle(store, "p", "one", files)
    key = damaged_part(store, "p/")
    (tmp_path / "store/p/one.json").unlink()
    (tmp_path / "store" / key).write_bytes(b"other")
    with pytest.raises(GraftlineError, match="holds other bytes"):
        put_bundle(store, "p", "one", files)


@pytest.mark.parametrize(
    "listed",
    [
        [], {"a": 1}, {"a": {}}, {"a": {"size": "1", "sha256": "0" * 64, "parts": []}},
        {"a": {"size": 1, "sha256": "0" * 64, "parts": ["$"]}}, {"a": {"size": 1, "parts": []}},
        {"b": {"size": 0, "sha256": sha256_bytes(b""), "parts": []}},
    ],
)  # fmt: skip
def test_what_somebody_untrusted_wrote_is_damaged_and_no_defect(listed: object, store_url: str, tmp_path: Path) -> None:
    store = open_store(store_url)
    store.put_if_absent("some/place/one.json", bundles._sealed({"name": "one", "files": listed}))
    with pytest.raises(DamagedError):
        get_bundle(store, "some/place", "one", tmp_path, most=100, only=("a",))


def test_a_manifest_of_somebody_untrusted_is_not_read_whatever_its_size(store_url: str, tmp_path: Path) -> None:
    store = open_store(store_url)
    store.put_if_absent("some/place/one.json", b"[" * (2 << 20))
    with pytest.raises(DamagedError, match="a manifest of more than"):
        get_bundle(store, "some/place", "one", tmp_path, most=100)
    with pytest.raises(DamagedError, match="not a manifest"):  # nor does it end a process that reads it
        get_bundle(store, "some/place", "one", tmp_path)
